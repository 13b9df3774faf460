-- What was written under which key: who lost the answer to a commit, finds it here.
CREATE TABLE applied (
    key TEXT PRIMARY KEY,
    revision BIGINT NOT NULL
);
CREATE INDEX applied_by_revision ON applied (revision);
