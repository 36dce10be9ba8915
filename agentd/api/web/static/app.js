// Keeps what a page shows up to date: hears that something happened, fetches the page anew, and takes over what has
// changed. Without it every page reads and every form works the same.
(() => {
  "use strict";

  const LEAST_MS = 1000, JITTER_MS = 700, QUIET_MS = 12500, POLL_MS = 10000, MOST_POLL_MS = 120000, PUBLIC_MS = 60000;
  const mode = document.body.dataset.live;
  const sign = document.getElementById("live");
  let stream = null, streamOk = false, timer = 0, fetching = false, again = false, failures = 0;

  // Times: how long ago, by this browser's clock, corrected by the daemon's; and in its own zone.

  const made = Date.parse(document.querySelector(".foot time")?.dateTime ?? "");
  const ahead = Number.isNaN(made) ? 0 : Math.abs(Date.now() - made) > 5000 ? Date.now() - made : 0;
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  function lasting(seconds) {
    if (seconds < 59.5) return `${Math.round(seconds)} s`;
    const whole = Math.round(seconds);
    for (const [size, unit, below, smaller] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
      if (whole < size) continue;
      const count = Math.floor(whole / size), rest = Math.floor((whole % size) / below);
      return rest && count < 10 ? `${count} ${unit} ${rest} ${smaller}` : `${count} ${unit}`;
    }
    return `${whole} s`;
  }

  function tellTimes() {
    for (const each of document.querySelectorAll("time[datetime]")) {
      const at = Date.parse(each.dateTime);
      if (Number.isNaN(at)) continue;
      const away = (Date.now() - ahead - at) / 1000;
      const text = "ago" in each.dataset
        ? Math.abs(away) < 1 ? "now" : away > 0 ? `${lasting(away)} ago` : `in ${lasting(-away)}`
        : local.format(at);
      if (each.textContent !== text) each.textContent = text;
      const title = `${local.format(at)} (${each.dateTime})`;
      if (each.title !== title) each.title = title;
    }
    for (const each of document.querySelectorAll("text[data-tick]")) {
      const at = Date.parse(each.dataset.tick);
      if (/^\d\d:\d\d$/.test(each.textContent.trim()) && !Number.isNaN(at)) each.textContent = clock.format(at);
    }
    for (const each of document.querySelectorAll(".zone")) each.textContent = "in your time zone";
  }

  // Taking over: only what differs is touched, so that focus, scrolling, open details and what somebody types stay.

  const keyOf = (node) => (node.nodeType === 1 ? node.id || node.dataset.key || "" : "");
  const typing = (node) => node.nodeName === "INPUT" || node.nodeName === "SELECT" || node.nodeName === "TEXTAREA";

  function same(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  }

  function takeAttributes(old, now) {
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.nodeName === "DETAILS" && name === "open") continue;
      if (old.nodeName === "TIME" && name === "title") continue;
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function take(old, now) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
      return;
    }
    if (typing(old) && (old === document.activeElement || old.type !== "hidden")) return;
    takeAttributes(old, now);
    if (old.nodeName === "TIME") return;
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = old.firstChild;
    for (const child of [...now.childNodes]) {
      const key = keyOf(child);
      let found = key ? keyed.get(key) : null;
      if (found && !same(found, child)) found = null;
      if (!found && !key) {
        let next = place;
        while (next && keyOf(next)) next = next.nextSibling;
        if (next && same(next, child)) found = next;
      }
      if (found) {
        if (found === place) place = place.nextSibling;
        else old.insertBefore(found, place);
        take(found, child);
        if (key) keyed.delete(key);
      } else {
        old.insertBefore(document.importNode(child, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function takeOver(text) {
    const now = new DOMParser().parseFromString(text, "text/html");
    if (!now.body || !now.getElementById("main")) return false;
    const focused = document.activeElement;
    let changed = false;
    for (const section of now.querySelectorAll("[data-live][id]")) {
      const old = document.getElementById(section.id);
      if (!old) {
        changed = true;
        continue;
      }
      take(old, section);
    }
    for (const old of document.querySelectorAll("main [data-live][id]")) {
      if (!now.getElementById(old.id)) old.replaceChildren();
    }
    // A part that was not there before, such as a first finding: with the whole, unless somebody is typing.
    if (changed && !(focused && typing(focused)) && !document.querySelector("main details.act[open]")) {
      take(document.getElementById("main"), now.getElementById("main"));
    }
    if (document.title !== now.title) document.title = now.title;
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    tellTimes();
    return true;
  }

  // Hearing.

  function say(live, text) {
    if (!sign || mode === "none") return;
    sign.hidden = false;
    sign.classList.toggle("off", !live);
    if (sign.textContent !== text) sign.textContent = text;
  }

  function tell() {
    if (failures) say(false, "not live: the daemon does not answer");
    else if (mode === "events" && !streamOk) say(false, "not live: looks every 10 s");
    else say(true, "live");
  }

  function plan(ms) {
    clearTimeout(timer);
    timer = setTimeout(refresh, ms);
  }

  function wait() {
    if (failures) return Math.min(POLL_MS * 2 ** (failures - 1), MOST_POLL_MS) * (0.8 + 0.4 * Math.random());
    if (mode === "poll") return PUBLIC_MS;
    return streamOk ? QUIET_MS * (0.8 + 0.4 * Math.random()) : POLL_MS;
  }

  function soon() {
    if (document.hidden || fetching) {
      again = true;
      return;
    }
    if (!soon.planned) {
      soon.planned = true;
      plan(LEAST_MS + Math.random() * JITTER_MS);
    }
  }

  async function refresh() {
    if (document.hidden) {
      again = true;
      return;
    }
    soon.planned = false;
    fetching = true;
    again = false;
    try {
      const address = new URL(location.href);
      address.hash = "";
      const answer = await fetch(address, {
        headers: { Accept: "text/html" }, credentials: "same-origin", cache: "no-store",
        redirect: "error", signal: AbortSignal.timeout(20000),
      });
      if (answer.status === 401 || answer.status === 403) {
        deaf();
        say(false, "not live: sign in again");
        return;
      }
      if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
      if (answer.ok) takeOver(await answer.text());
      failures = 0;
    } catch {
      failures += 1;
    } finally {
      fetching = false;
    }
    tell();
    if (again) soon();
    else plan(wait());
  }

  function listen() {
    if (mode !== "events" || stream) return;
    stream = new EventSource("/api/v1/events");
    stream.addEventListener("open", () => {
      const was = streamOk;
      streamOk = true;
      tell();
      if (!was && heard) soon();
    });
    let heard = false;
    for (const kind of ["alert", "watch", "run", "outbox", "config", "status", "reset"]) {
      stream.addEventListener(kind, () => {
        heard = true;
        soon();
      });
    }
    stream.addEventListener("error", () => {
      // It tries again by itself, each time with an error: only the first one plans a look.
      if (streamOk) plan(POLL_MS * Math.random());
      streamOk = false;
      heard = true;
      tell();
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream.close();
        stream = null;
        setTimeout(() => { if (!document.hidden) listen(); }, 30000);
      }
    });
  }

  function deaf() {
    if (stream) stream.close();
    stream = null;
    streamOk = false;
    clearTimeout(timer);
    soon.planned = false;
  }

  document.addEventListener("visibilitychange", () => {
    if (mode === "none") return;
    if (document.hidden) {
      deaf();
    } else {
      listen();
      plan(Math.random() * 300);
    }
  });
  window.addEventListener("pagehide", deaf);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && mode !== "none") {
      listen();
      plan(0);
    }
  });

  // The notice of what was done is said once.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    address.searchParams.delete("n");
    history.replaceState(null, "", address);
  }

  // One press, one message.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 5000);
  });

  function openTarget() {
    const found = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = found && found.querySelector && found.querySelector("details");
    if (details) details.open = true;
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();

  tellTimes();
  setInterval(() => { if (!document.hidden) tellTimes(); }, 1000);
  if (mode === "events" || mode === "poll") {
    if (!document.hidden) listen();
    plan(wait());
    if (mode === "poll") tell();
    else setTimeout(tell, 1500);
  }
})();
