-- Tables of the broker's database, and every statement longer than a line or two.
--
-- lead      one row a namespace: the current term, the clock era and the ledger's
--           edition. `nonce` is empty when the lead was given back. `pages` is the
--           number of the last page of the history. The lead itself is a kernel lock on
--           a file beside the database; the term in here makes a former leader's
--           emission fail.
-- configs   what the leader of a namespace emits, in short, for other schedulers to
--           compare; it holds while `nonce` is that of the term.
-- standbys  who stands by, with the digest of its entries, and when it was heard, on the
--           machine's monotonic clock.
-- ledger    last slot of each entry. Written in the transaction that inserts the
--           messages, so that both are there or neither is.
-- runs      the current run of each entry that has an overlap rule.
-- bindings  which queue an exchange reaches, as declared.
-- messages  all that are not settled. A message is ready, delayed (`due`) or in flight
--           (`worker`, `attempt`), and keeps its row through all of these. Ready ones
--           are taken in the order of step, place, id: `place` is 0, or less for a
--           message that was put in front. In flight, `place` is the order of taking,
--           and `attempt` the number of the request to take, with random bits after it:
--           ids, and such numbers, come again in a file that was set back.
--           A message that is acknowledged, while its run is its entry's current one
--           and goes on, is kept under its worker with an empty `attempt`, which is in
--           `place` then: the run ends with the lease.
--           `deaths` counts the workers that died with the message.
-- workers   leases, on the machine's monotonic clock. `sent` has the number of the last
--           request to settle something, and a letter for each answer to it; `took` that
--           of the last request to take; `ended` the deliveries in flight, among others,
--           whose runs have ended, as "<attempt>:<id>" with spaces between them;
--           `queues` those that the worker takes from, in JSON, for people. A lease
--           that is over stays with a `lease` of 0 until `ends`: copies of the worker's
--           requests may still be under way.
-- dead      the dead-letter queue; AUTOINCREMENT, so that no id is used twice.
-- pages     what each batch of emissions did, written with it; numbered by namespace.
-- history   the same by entry, once pages are folded: records in MessagePack; under ""
--           what is known of the history itself, and so which pages are in it.
-- notes     what else has to outlive who leads, by book and name.
--
-- Each method of the broker is one transaction, BEGIN IMMEDIATE to COMMIT, durable when
-- it returns (synchronous FULL).

-- name: make_lead
CREATE TABLE lead (
    namespace TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    nonce TEXT NOT NULL,
    era INTEGER NOT NULL,
    lineage TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 0,
    terms TEXT NOT NULL DEFAULT '',
    pages INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID

-- name: make_configs
CREATE TABLE IF NOT EXISTS configs (
    namespace TEXT PRIMARY KEY,
    nonce TEXT NOT NULL,
    digest TEXT NOT NULL,
    entries BLOB NOT NULL
)

-- name: make_standbys
CREATE TABLE IF NOT EXISTS standbys (
    namespace TEXT,
    holder TEXT,
    digest TEXT NOT NULL,
    heard INTEGER NOT NULL,
    PRIMARY KEY (namespace, holder)
) WITHOUT ROWID

-- name: make_ledger
CREATE TABLE ledger (
    namespace TEXT,
    entry TEXT,
    slot INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    runs INTEGER NOT NULL,
    last INTEGER,
    high INTEGER,
    PRIMARY KEY (namespace, entry)
) WITHOUT ROWID

-- name: make_runs
CREATE TABLE runs (
    namespace TEXT,
    entry TEXT,
    run TEXT NOT NULL,
    PRIMARY KEY (namespace, entry)
) WITHOUT ROWID

-- name: make_bindings
CREATE TABLE bindings (
    exchange TEXT,
    key TEXT,
    pattern TEXT,
    queue TEXT,
    PRIMARY KEY (exchange, key, pattern, queue)
) WITHOUT ROWID

-- name: make_messages
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    step INTEGER NOT NULL,
    place INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    due INTEGER,
    worker TEXT,
    attempt TEXT,
    message BLOB NOT NULL
)

-- name: make_ready
CREATE INDEX ready ON messages (queue, step, place, id)
    WHERE worker IS NULL AND due IS NULL

-- name: make_in_flight
CREATE INDEX in_flight ON messages (worker, place) WHERE worker IS NOT NULL

-- name: make_delayed
CREATE INDEX delayed ON messages (due) WHERE due IS NOT NULL

-- name: make_workers
CREATE TABLE workers (
    worker TEXT PRIMARY KEY,
    lease INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    sent TEXT NOT NULL DEFAULT '',
    took INTEGER NOT NULL DEFAULT 0,
    ended TEXT NOT NULL DEFAULT '',
    queues TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID

-- name: make_dead
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    step INTEGER NOT NULL,
    reason TEXT NOT NULL,
    buried INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    worker TEXT NOT NULL,
    task TEXT NOT NULL,
    task_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    message BLOB NOT NULL
)

-- name: make_pages
CREATE TABLE IF NOT EXISTS pages (
    namespace TEXT,
    number INTEGER,
    page BLOB NOT NULL,
    PRIMARY KEY (namespace, number)
)

-- name: make_history
CREATE TABLE IF NOT EXISTS history (
    namespace TEXT,
    entry TEXT,
    records BLOB NOT NULL,
    PRIMARY KEY (namespace, entry)
)

-- name: make_notes
CREATE TABLE IF NOT EXISTS notes (
    namespace TEXT,
    book TEXT,
    name TEXT,
    note BLOB NOT NULL,
    PRIMARY KEY (namespace, book, name)
)

-- name: count_page
UPDATE lead SET pages = pages + 1 WHERE namespace = ?

-- name: add_page
INSERT OR REPLACE INTO pages (number, namespace, page)
SELECT pages, namespace, ? FROM lead WHERE namespace = ?

-- name: drop_pages
DELETE FROM pages WHERE namespace = ? AND number <= (
    SELECT pages - ? FROM lead WHERE namespace = ?
)

-- name: remove_pages
DELETE FROM pages WHERE namespace = ? AND number <= ?

-- name: pages
SELECT number, page FROM pages WHERE namespace = ? ORDER BY number LIMIT ?

-- name: history
SELECT CAST(entry AS BLOB), CAST(records AS BLOB) FROM history WHERE namespace = ?

-- name: keep_history
INSERT OR REPLACE INTO history (namespace, entry, records) VALUES (?, ?, ?)

-- name: forget_history
DELETE FROM history WHERE namespace = ? AND entry = ?

-- name: notes
SELECT CAST(name AS BLOB), CAST(note AS BLOB) FROM notes
WHERE namespace = ? AND book = ?

-- name: keep_note
INSERT OR REPLACE INTO notes (namespace, book, name, note) VALUES (?, ?, ?, ?)

-- name: forget_note
DELETE FROM notes WHERE namespace = ? AND book = ? AND name = ?

-- name: set_term
INSERT INTO lead (namespace, number, nonce, era) VALUES (?, ?, ?, 0)
ON CONFLICT (namespace) DO UPDATE SET number = excluded.number, nonce = excluded.nonce

-- name: edition
SELECT lineage, version, terms FROM lead WHERE namespace = ?

-- name: set_edition
UPDATE lead SET lineage = ?, version = ?, terms = ? WHERE namespace = ?

-- name: announce
INSERT OR REPLACE INTO configs (namespace, nonce, digest, entries) VALUES (?, ?, ?, ?)

-- name: announced
SELECT digest, entries FROM configs WHERE namespace = ? AND nonce = ? AND digest <> ?

-- name: advance
-- Changes no row exactly when the ledger has this slot or a later one.
INSERT INTO ledger (namespace, slot, fingerprint, runs, last, high, entry)
SELECT ?, ?, ?, ?, ?, ?, column1 FROM (VALUES (?)) WHERE true
ON CONFLICT (namespace, entry) DO UPDATE SET
    slot = excluded.slot,
    fingerprint = excluded.fingerprint,
    runs = excluded.runs,
    last = excluded.last,
    high = excluded.high
WHERE excluded.slot > ledger.slot

-- name: set_mark
INSERT OR REPLACE INTO ledger (namespace, entry, slot, fingerprint, runs, last, high)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: push
INSERT INTO messages (queue, step, due, message)
SELECT ?, ?, ?, column1 FROM (VALUES (?))

-- name: join
INSERT INTO workers (worker, lease, ends, queues) VALUES (?, ?, ?, ?)
ON CONFLICT (worker) DO UPDATE SET
    lease = excluded.lease, ends = excluded.ends, queues = excluded.queues

-- name: stay
UPDATE workers SET lease = ?, ends = ? WHERE worker = ? AND lease > 0

-- name: end_lease
UPDATE workers SET lease = 0, ends = ? WHERE worker = ?

-- name: forget_workers
-- What ends later than is ever remembered is from before the machine's start.
DELETE FROM workers WHERE lease = 0 AND (ends <= ? OR ends > ?)

-- name: last_take
SELECT took FROM workers WHERE worker = ? AND lease > 0

-- name: taken
SELECT id, attempt, queue, message, deaths FROM messages
WHERE worker = ? AND place > ? AND CAST(attempt AS INTEGER) >> ? = ? ORDER BY place

-- name: ready
SELECT id, step, length(message), deaths
FROM messages
WHERE queue = ? AND worker IS NULL AND due IS NULL AND deaths <= ?
ORDER BY step, place, id LIMIT ?

-- name: ended
SELECT CAST(ended AS TEXT) FROM workers WHERE worker = ?

-- name: note_ended
UPDATE workers SET ended = ? WHERE worker = ?

-- name: take
UPDATE messages SET worker = ?, attempt = ?, place = ? WHERE id = ?

-- name: is_ready
SELECT EXISTS (
    SELECT 1 FROM messages WHERE queue = ? AND worker IS NULL AND due IS NULL
)

-- name: is_unattended
SELECT NOT EXISTS (SELECT 1 FROM workers WHERE ends - ? BETWEEN 1 AND lease)
    AND EXISTS (SELECT 1 FROM messages WHERE worker IS NULL AND due IS NULL)

-- name: next_due
SELECT min(due) FROM messages WHERE due IS NOT NULL

-- name: delayed
SELECT queue, message, due FROM messages
WHERE due IS NOT NULL AND queue IN (SELECT value FROM json_each(?))
ORDER BY due, id LIMIT ?

-- name: over
SELECT id, queue FROM messages WHERE due IS NOT NULL AND due <= ?
ORDER BY due, id LIMIT 100

-- name: under
SELECT id, attempt, place FROM messages WHERE worker = ? ORDER BY place DESC

-- name: put_in_front
UPDATE messages SET
    worker = NULL,
    attempt = NULL,
    due = NULL,
    place = (
        SELECT coalesce(min(first.place), 0) - 1 FROM messages AS first
        WHERE first.queue = messages.queue AND first.step = messages.step
            AND first.worker IS NULL AND first.due IS NULL
    )
WHERE id = ?

-- name: count_death
UPDATE messages SET deaths = deaths + 1 WHERE id = ?

-- name: in_flight
SELECT id FROM messages WHERE id = ? AND worker = ? AND attempt = ?

-- name: note_take
UPDATE workers SET took = ? WHERE worker = ?

-- name: remember
-- A worker without a row has lost its lease with the data.
INSERT INTO workers (worker, lease, ends, sent) VALUES (?, 0, ?, ?)
ON CONFLICT (worker) DO UPDATE SET sent = excluded.sent

-- name: delay
UPDATE messages SET worker = NULL, attempt = NULL, due = ?
WHERE id = ? AND worker = ? AND attempt = ?

-- name: begin
UPDATE messages SET attempt = '', place = CAST(attempt AS INTEGER)
WHERE id = ? AND worker = ? AND attempt = ?
    AND EXISTS (SELECT 1 FROM runs WHERE namespace = ? AND entry = ? AND run = ?)

-- name: begun_by
SELECT CAST(message AS BLOB) FROM messages WHERE worker = ? AND attempt = ''

-- name: end_begun
-- By the attempt that took it, too: ids come again in a file that was set back.
DELETE FROM messages
WHERE id = ? AND worker = ? AND attempt = '' AND place = CAST(? AS INTEGER)

-- name: forget_begun_by
DELETE FROM messages WHERE worker = ? AND attempt = ''

-- name: message
SELECT CAST(message AS BLOB) FROM messages WHERE id = ? AND worker = ? AND attempt = ?

-- name: leased
SELECT CAST(message AS BLOB) FROM messages
WHERE worker IN (SELECT worker FROM workers WHERE lease > 0)
    AND worker NOT IN (SELECT value FROM json_each(?))

-- name: acknowledge
DELETE FROM messages WHERE id = ? AND worker = ? AND attempt = ?

-- name: runs_to_purge
-- Nothing is looked through when no run is remembered.
SELECT CAST(message AS BLOB) FROM messages
WHERE queue = ? AND worker IS NULL AND due IS NULL
    AND EXISTS (SELECT 1 FROM runs)
    AND instr(message, CAST('"beatd_entry"' AS BLOB))

-- name: purge
DELETE FROM messages WHERE queue = ? AND worker IS NULL AND due IS NULL

-- name: set_aside
INSERT INTO dead (
    queue, step, reason, buried, deliveries, worker, task, task_id, size, message
)
SELECT queue, step, ?, ?, ?, worker, ?, ?, length(message), message
FROM messages WHERE id = ? AND worker = ? AND attempt = ?

-- name: set_aside_anew
INSERT INTO dead (
    reason, buried, deliveries, task, task_id, queue, step, worker, size, message
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: letters
SELECT id, queue, reason, buried, deliveries, worker, size, task, task_id
FROM dead ORDER BY id

-- name: dead_message
SELECT CAST(message AS BLOB) FROM dead WHERE id = ?

-- name: retry_dead
INSERT INTO messages (queue, step, message)
SELECT queue, step, ? FROM dead WHERE id = ?

-- name: leases
-- One that ends later than its length allows is from before the machine's start: nothing
-- is left of its length.
SELECT worker, ends, CASE WHEN ends - lease > ? THEN 0 ELSE lease END
FROM workers WHERE lease > 0

-- name: observed
SELECT worker, lease, ends, queues,
    (SELECT count(*) FROM messages WHERE messages.worker = workers.worker)
FROM workers WHERE lease > 0 ORDER BY worker

-- name: standbys
SELECT holder, digest, heard FROM standbys
WHERE namespace = ? AND heard BETWEEN ? AND ? ORDER BY holder

-- name: length
SELECT count(*) FROM messages WHERE queue = ? AND worker IS NULL AND due IS NULL

-- name: first
SELECT CAST(message AS BLOB) FROM messages
WHERE queue = ? AND worker IS NULL AND due IS NULL ORDER BY step, place, id LIMIT 1

-- name: waiting
SELECT CAST(message AS BLOB) FROM messages
WHERE queue = ? AND worker IS NULL AND due IS NULL ORDER BY step, place, id LIMIT ?
