"""
Labelled log lines in the styles of well-known programs, for tests and benches of the template miner.

tests/logs/styles/NAME.txt holds a style: first what stands before each message, then the templates. Lines come with
skewed frequencies: a few templates make most of them, some come once or twice. The same seed gives the same lines.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

STYLES = sorted(path.stem for path in (Path(__file__).parent / "logs" / "styles").glob("*.txt"))


def _words(text: str) -> list[str]:
    return text.split()


_USERS = _words(
    "root admin guest test oracle alice bob carol postgres mysql nagios ftp www-data git jenkins ubuntu deploy backup "
    "pi cyrus news web01 user42 j.doe svc_backup support operator fztu webmaster info student matlab teamspeak "
    "minecraft PlcmSpIp zabbix tomcat hadoop spark 1234 a anna.meier x0r demo2 sales uucp nobody"
)
_WORDS = _words(
    "orders users kafka billing invoice search images thumbs mail default nightly payments events sessions carts "
    "stock python3 nginx mysqld bash firefox Safari WeChat sharingd cloudd httpd java node postgres redis celery "
    "gunicorn reports audit import export metrics logs cache frontend backend"
)
_TITLES = [
    "Daily apt download activities", "nginx", "OpenBSD Secure Shell server", "Network Time Synchronization", "Timers",
    "User Manager for UID 1000", "Docker Application Container Engine", "Cleanup of Temporary Directories", "Graphical",
    "PostgreSQL Cluster 15-main", "Rotate log files", "Message of the Day", "Multi-User System", "Basic System",
]  # fmt: skip
_AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "curl/8.1.2", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15", "kube-probe/1.28",
    "python-requests/2.31.0", "Googlebot/2.1 (+http://www.google.com/bot.html)", "-",
]  # fmt: skip
_IDENTS = _words(
    "mapred.job.id user.name mapreduce.task.attempt.id fs.defaultFS com.apple.security.agent com.example.Main "
    "ServerCnxn$EndOfStream java.nio.channels.CancelledKeyException Thunderbird_A1 Thunderbird_B7 osapi_compute.wsgi "
    "compute.manager virt.libvirt.imagecache node_load5 http_requests_total ARPT.wake compute.resource_tracker"
)
_MONTHS = _words("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
_DAYS = _words("Mon Tue Wed Thu Fri Sat Sun")

Labelled = tuple[int, str]


def labelled(style: str, lines: int, *, seed: int = 1, header: bool = True) -> list[Labelled]:
    """So many lines of a style, each with the number of the template that made it."""
    head, *templates = (Path(__file__).parent / "logs" / "styles" / f"{style}.txt").read_text().splitlines()
    dice = random.Random(f"{style} {seed}")
    dice.shuffle(templates)
    weights = [1 / (rank + 1) ** 1.6 for rank in range(len(templates))]
    labels = dice.choices(range(len(templates)), weights, k=max(0, lines - len(templates))) + list(
        range(len(templates))
    )
    dice.shuffle(labels)
    fill = _Filler(dice)
    heads = [_settled(head, fill) if header else "" for _ in templates]
    return [(label, fill(heads[label] + templates[label])) for label in labels[:lines]]


def _settled(head: str, fill: _Filler) -> str:
    """A header whose level and part of the program are one message's own, as they are in programs."""
    own = re.sub(
        r"\{(level|alevel|class|comp|facility|daemon|letter|csicbs|prog)\}", lambda place: fill(place[0]), head
    )
    return own if not own or own.endswith("|") else f"{own} "


def grouping_accuracy(truth: Sequence[int], found: Sequence[object]) -> float:
    """The share of lines whose predicted group is the set of lines of their true group (as logparser counts)."""
    groups: dict[object, list[int]] = {}
    for at, group in enumerate(found):
        groups.setdefault(group, []).append(at)
    sizes: dict[int, int] = {}
    for label in truth:
        sizes[label] = sizes.get(label, 0) + 1
    right = 0
    for members in groups.values():
        labels = {truth[at] for at in members}
        if len(labels) == 1 and sizes[labels.pop()] == len(members):
            right += len(members)
    return right / len(truth)


class _Filler:
    """Puts values in the places of a template."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._clock = 1_700_000_000
        self._nodes: dict[str, str] = {}
        known = {name.removeprefix("_v_"): getattr(self, name) for name in dir(self) if name.startswith("_v_")}
        self._make: dict[str, Callable[[], str]] = known

    def __call__(self, template: str) -> str:
        self._clock += self._dice.randrange(3)
        self._nodes.clear()
        return re.sub(r"\{([a-z0-9]+)\}", self._value, template)

    def _value(self, match: re.Match[str]) -> str:
        name = match[1]
        if name in ("tnode", "node"):  # stands twice in a header, the same both times
            return self._nodes.setdefault(name, self._make[name]())
        return self._make[name]()

    def _n(self, low: int, high: int) -> str:
        return str(self._dice.randint(low, high))

    def _skewed(self, values: Sequence[str]) -> str:
        return values[min(int(self._dice.paretovariate(0.7)) - 1, len(values) * 3) % len(values)]

    def _hexes(self, count: int) -> str:
        return f"{self._dice.getrandbits(count * 4):0{count}x}"

    def _hms(self) -> str:
        clock = self._clock % 86_400
        return f"{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}"

    def _day(self) -> int:
        return 1 + self._clock // 86_400 % 28

    # --- numbers
    def _v_n(self) -> str:
        return self._n(0, 10 ** self._dice.randint(1, 5))

    def _v_d(self) -> str:
        return self._n(0, 9)

    def _v_neg(self) -> str:
        return self._n(-40, 40)

    def _v_big(self) -> str:
        return self._n(10**8, 10**14)

    def _v_float(self) -> str:
        return f"{self._dice.random() * 10 ** self._dice.randint(0, 4):.{self._dice.randint(1, 6)}f}"

    def _v_size(self) -> str:
        return f"{self._dice.random() * 900:.1f} {self._dice.choice(['B', 'KB', 'MB', 'GB'])}"

    def _v_pbytes(self) -> str:
        size = int(10 ** (self._dice.random() * 6))
        return f"{size} bytes" + (f" ({size / 1024:.2f} KB)" if size > 1024 else "")

    def _v_lifetime(self) -> str:
        return self._dice.choice(["<1 sec", "00:01", f"{self._n(0, 59):0>2}:{self._n(0, 59):0>2}", "1:02:09"])

    def _v_status(self) -> str:
        return self._dice.choice(["200", "200", "204", "301", "404", "500", "503"])

    def _v_version(self) -> str:
        return ".".join(self._n(0, 20) for _ in range(self._dice.randint(2, 4)))

    def _v_port(self) -> str:
        return self._n(22, 65535)

    def _v_pci(self) -> str:
        return f"0000:{self._hexes(2)}:{self._hexes(2)}.{self._n(0, 7)}"

    # --- hexadecimal
    def _v_hex0x(self) -> str:
        return f"0x{self._hexes(self._dice.choice([1, 2, 4, 8, 12, 16]))}"

    def _v_hex7(self) -> str:
        return self._hexes(7)

    def _v_hex8(self) -> str:
        return self._hexes(8)

    def _v_hex32(self) -> str:
        return self._hexes(32)

    def _v_hexid(self) -> str:
        return self._hexes(8)

    def _v_hexaddr(self) -> str:
        return self._hexes(16)

    def _v_hexdash(self) -> str:
        return "-".join(self._hexes(4) for _ in range(8))

    def _v_uuid(self) -> str:
        return "-".join(self._hexes(size) for size in (8, 4, 4, 4, 12))

    def _v_blk(self) -> str:
        return f"blk_{self._dice.randint(-(10**18), 10**18)}"

    def _v_blks(self) -> str:
        return " ".join(self._v_blk() for _ in range(self._dice.randint(1, 8)))

    def _v_kb(self) -> str:
        return f"Package_for_KB{self._n(10**6, 10**7)}~{self._hexes(16)}~amd64~~6.1.1.{self._n(0, 9)}"

    # --- places
    def _v_ip(self) -> str:
        return ".".join(self._n(1, 254) for _ in range(4))

    def _v_ips(self) -> str:
        return " ".join(f"{self._v_ip()}:{self._v_port()}" for _ in range(self._dice.randint(1, 3)))

    def _v_mac(self) -> str:
        return ":".join(self._hexes(2) for _ in range(6))

    def _v_iface(self) -> str:
        return self._dice.choice(["eth0", "eth1", "alt0", "bond0", "wlp3s0"])

    def _v_host(self) -> str:
        return self._skewed(["web-1", "web-2", "msra-sa-41", "minint-fnanli5", "db1", "combo", "gateway", "proxy-eu-3"])

    def _v_domain(self) -> str:
        word = self._skewed(_WORDS).lower()
        return self._dice.choice(
            [
                f"{word}.example.net",
                f"{self._v_ip().replace('.', '-')}.dyn.example.org",
                self._v_ip(),
                f"ns{self._v_d()}.{word}.example",
            ]
        )

    def _v_machost(self) -> str:
        return self._dice.choice(["authorMacBook-Pro", f"calvisitor-{self._v_ip().replace('.', '-')}"])

    def _v_tnode(self) -> str:
        return self._dice.choice(
            [f"dn{self._n(1, 999)}", f"bn{self._n(1, 999)}", "tbird-admin1", "aadmin1", f"en{self._n(1, 99)}"]
        )

    def _v_node(self) -> str:
        d = self._dice.randint
        return f"R{d(0, 70):02}-M{d(0, 1)}-N{d(0, 9)}-C:J{d(1, 17):02}-U{d(1, 12):02}"

    def _v_path(self) -> str:
        parts = [self._skewed(_WORDS) for _ in range(self._dice.randint(1, 4))]
        end = self._dice.choice(["", ".html", ".log", f"-{self._n(1, 99)}", f"/{self._hexes(40)}", ".tar.gz", "/"])
        return "/" + "/".join(parts) + end

    def _v_paths(self) -> str:
        return " ".join(self._v_path() for _ in range(self._dice.randint(1, 4)))

    def _v_winpath(self) -> str:
        return f"C:\\Windows\\winsxs\\amd64_{self._skewed(_WORDS)}_{self._hexes(16)}_{self._v_version()}\\x.dll"

    def _v_email(self) -> str:
        return f"{self._skewed(_USERS)}.{self._v_n()}@{self._skewed(_WORDS).lower()}.example"

    # --- names
    def _v_user(self) -> str:
        return self._skewed(_USERS)

    def _v_word(self) -> str:
        return self._skewed(_WORDS)

    def _v_letter(self) -> str:
        return self._dice.choice("VDIWE")

    def _v_title(self) -> str:
        return self._skewed(_TITLES)

    def _v_unit(self) -> str:
        return f"{self._skewed(_WORDS).lower()}{self._dice.choice(['', '-' + self._v_d(), '@' + self._v_n()])}.service"

    def _v_app(self) -> str:
        return self._dice.choice(["Google Chrome", "Safari", "com.apple.xpc.launchd", "Microsoft Word", "Finder"])

    def _v_pkg(self) -> str:
        return self._dice.choice(
            ["com.android.systemui", "android", "com.tencent.mm", "com.tencent.qt.qtl", "PhoneWindow"]
        )

    def _v_activity(self) -> str:
        return f"{self._v_pkg()}/.{self._skewed(['ui.Main', 'activity.info.NewsDetailXml', 'Player', 'Chat'])}Activity"

    def _v_tag(self) -> str:
        return self._dice.choice(["View Lock", "RILJ_ACK_WL", "PowerManagerService.WakeLocks", "*launch*", "AudioMix"])

    def _v_ws(self) -> str:
        return self._dice.choice(["null", f"WorkSource{{{self._v_n()}}}"])

    def _v_class(self) -> str:
        return self._dice.choice(["executor.Executor", "storage.MemoryStore", "WindowStateAnimator", "QuorumPeer$Main"])

    def _v_ident(self) -> str:
        return self._skewed(_IDENTS)

    def _v_comp(self) -> str:
        return self._dice.choice(["PowerManagerService", "WindowManager", "Step_LSC", "HiH_DataStatManager"])

    def _v_prog(self) -> str:
        return self._dice.choice(["kernel", "sshd(pam_unix)", "crond", "su(pam_unix)", "ftpd", "sendmail", "ntpd"])

    def _v_thread(self) -> str:
        return self._dice.choice(["main", f"Thread-{self._v_n()}", f"IPC-Server-{self._v_d()}", "LeaseRenewer:msrabi"])

    def _v_daemon(self) -> str:
        return self._dice.choice(["DataNode$DataXceiver", "FSNamesystem", "DataNode$PacketResponder"])

    def _v_facility(self) -> str:
        return self._dice.choice(["KERNEL", "APP", "MMCS"])

    def _v_level(self) -> str:
        return self._dice.choice(["INFO", "INFO", "INFO", "WARN", "ERROR"])

    def _v_alevel(self) -> str:
        return self._dice.choice(["error", "notice", "warn"])

    def _v_csicbs(self) -> str:
        return self._dice.choice(["CBS   ", "CSI   "])

    def _v_client(self) -> str:
        return self._dice.choice(["WindowsUpdateAgent", "SPP", "DISM", "TrustedInstaller"])

    def _v_exe(self) -> str:
        return self._dice.choice(["chrome.exe", "QQ.exe", "Dropbox.exe *64", "Skype.exe", "outlook.exe *64"])

    def _v_result(self) -> str:
        return self._dice.choice(["exit-code", "timeout", "signal", "oom-kill"])

    def _v_exitcode(self) -> str:
        return self._dice.choice([f"exited, status={self._v_d()}/FAILURE", "killed, status=9/KILL"])

    def _v_rdd(self) -> str:
        return self._dice.choice([f"rdd_{self._v_d()}_{self._v_n()}", f"broadcast_{self._v_n()}"])

    def _v_ckpt(self) -> str:
        return self._dice.choice(["time", "wal"])

    def _v_tty(self) -> str:
        return self._dice.choice(["NODEVssh", "ssh", "tty1"])

    def _v_state(self) -> str:
        return self._dice.choice(["LOOKING", "FOLLOWING", "LEADING"])

    def _v_bool(self) -> str:
        return self._dice.choice(["true", "false"])

    def _v_agent(self) -> str:
        return self._dice.choice(_AGENTS)

    # --- times
    def _v_hms(self) -> str:
        return self._hms()

    def _v_epoch(self) -> str:
        return str(self._clock)

    def _v_syslogtime(self) -> str:
        return f"{_MONTHS[self._clock // 2_400_000 % 12]} {self._day():>2} {self._hms()}"

    def _v_ctime(self) -> str:
        return f"{_DAYS[self._clock // 86_400 % 7]} Jul {self._day():>2} {self._hms()} 2005"

    def _v_iso(self) -> str:
        return f"2015-10-{self._day():02} {self._hms()},{self._n(0, 999):0>3}"

    def _v_isoz(self) -> str:
        return f"2026-03-{self._day():02}T{self._hms()}.{self._n(0, 999):0>3}Z"

    def _v_dtime(self) -> str:
        return f"2017-05-{self._day():02} {self._hms()}.{self._n(0, 999):0>3}"

    def _v_filetime(self) -> str:
        return f"nova-api.log.1.2017-05-{self._day():02}_{self._hms()}"

    def _v_dotted(self) -> str:
        return f"2005.06.{self._day():02}"

    def _v_longtime(self) -> str:
        return f"2005-06-{self._day():02}-{self._hms().replace(':', '.')}.{self._n(10**5, 10**6)}"

    def _v_mdtime(self) -> str:
        return f"03-{self._day():02} {self._hms()}.{self._n(0, 999):0>3}"

    def _v_packedtime(self) -> str:
        return f"201712{self._day():02}-{self._hms()}:{self._n(0, 999)}"

    def _v_pxtime(self) -> str:
        return f"10.{self._day():02} {self._hms()}"

    def _v_short(self) -> str:
        return f"17/06/{self._day():02} {self._hms()}"

    def _v_slashdate(self) -> str:
        return f"2016/9/{self._day()}"

    def _v_compact(self) -> str:
        return f"0811{self._day():02} {self._hms().replace(':', '')}"

    def _v_clf(self) -> str:
        return f"{self._day():02}/Mar/2026:{self._hms()} +0000"
