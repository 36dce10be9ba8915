-- What agents did, found and learned.

-- The record of a run, line by line: to show it and to run it again. data: JSON, as text or packed by zlib.
CREATE TABLE run_records (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run    TEXT NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    at_s   REAL NOT NULL,
    kind   TEXT NOT NULL,
    data   ANY NOT NULL
) STRICT;

CREATE UNIQUE INDEX run_records_run ON run_records (run, seq);

-- Whole outputs of tools, by the id of their evidence. data: packed by zlib. bytes: before that.
CREATE TABLE outputs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run    TEXT NOT NULL,
    id     TEXT NOT NULL,
    at     INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    data   BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX outputs_id ON outputs (run, id);

-- Long-term memory: what runs ended with, and what tools said on the way. text: what is searched. data: JSON of the rest.
CREATE TABLE notes (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    type        TEXT NOT NULL,
    run         TEXT NOT NULL,
    watch       TEXT NOT NULL,
    fingerprint TEXT,
    step        INTEGER,
    tool        TEXT,
    text        TEXT NOT NULL,
    data        TEXT NOT NULL
) STRICT;

CREATE INDEX notes_type  ON notes (type, number);
CREATE INDEX notes_about ON notes (fingerprint, number) WHERE fingerprint IS NOT NULL;
CREATE INDEX notes_watch ON notes (watch, number) WHERE type = 'final';

CREATE VIRTUAL TABLE notes_words USING fts5 (
    text, content = 'notes', content_rowid = 'number', prefix = '2 3', tokenize = "unicode61 remove_diacritics 2"
);

CREATE TRIGGER notes_in AFTER INSERT ON notes BEGIN
    INSERT INTO notes_words (rowid, text) VALUES (new.number, new.text);
END;

CREATE TRIGGER notes_out AFTER DELETE ON notes BEGIN
    INSERT INTO notes_words (notes_words, rowid, text) VALUES ('delete', old.number, old.text);
    DELETE FROM note_vectors WHERE note = old.number;
END;

-- What notes mean, as 32-bit floats. model: who measured; vectors of two models do not compare.
CREATE TABLE note_vectors (
    note   INTEGER PRIMARY KEY,
    model  TEXT NOT NULL,
    vector BLOB NOT NULL
) STRICT;

-- What worked: which worker class suits which kind of task, in which shape of graph, with which model.
CREATE TABLE worked (
    kind          TEXT NOT NULL,
    worker        TEXT NOT NULL,
    shape         TEXT NOT NULL,
    model         TEXT NOT NULL,
    runs          INTEGER NOT NULL,
    successes     INTEGER NOT NULL,
    latency_us    INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    usd_nano      INTEGER NOT NULL,
    unknown_costs INTEGER NOT NULL,
    last_at       INTEGER NOT NULL,
    PRIMARY KEY (kind, worker, shape, model)
) STRICT, WITHOUT ROWID;

CREATE INDEX worked_last ON worked (last_at);
