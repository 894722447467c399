BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE tokens (
    id VARCHAR(12) NOT NULL, 
    kind VARCHAR(16) NOT NULL, 
    name VARCHAR(80) NOT NULL, 
    secret_hash VARCHAR(64) NOT NULL, 
    created_at DOUBLE PRECISION NOT NULL, 
    revoked_at DOUBLE PRECISION, 
    last_used_at DOUBLE PRECISION, 
    CONSTRAINT pk_tokens PRIMARY KEY (id)
);

CREATE TABLE secrets (
    name VARCHAR(64) NOT NULL, 
    value VARCHAR(128) NOT NULL, 
    CONSTRAINT pk_secrets PRIMARY KEY (name)
);

CREATE TABLE models (
    name VARCHAR(200) NOT NULL, 
    position INTEGER NOT NULL, 
    from_settings BOOLEAN NOT NULL, 
    added_at DOUBLE PRECISION NOT NULL, 
    reported_by VARCHAR(64), 
    digest VARCHAR(64), 
    family VARCHAR(64), 
    blocks INTEGER, 
    hidden_size INTEGER, 
    parameters BIGINT, 
    context BIGINT, 
    CONSTRAINT pk_models PRIMARY KEY (name)
);

CREATE TABLE volunteers (
    peer VARCHAR(16) NOT NULL, 
    token_id VARCHAR(12) NOT NULL, 
    name VARCHAR(80) NOT NULL, 
    device VARCHAR(100) NOT NULL, 
    memory BIGINT NOT NULL, 
    replica VARCHAR(64) NOT NULL, 
    state VARCHAR(16) NOT NULL, 
    joined_at DOUBLE PRECISION NOT NULL, 
    seen_at DOUBLE PRECISION NOT NULL, 
    model VARCHAR(200), 
    start INTEGER, 
    "end" INTEGER, 
    head BOOLEAN NOT NULL, 
    dtype VARCHAR(16), 
    quantization VARCHAR(16), 
    blocks_per_second DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_volunteers PRIMARY KEY (peer), 
    CONSTRAINT fk_volunteers_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

-- Running upgrade 0001 -> 0002

CREATE TABLE evidence (
    id BIGSERIAL NOT NULL, 
    peer VARCHAR(16) NOT NULL, 
    kind VARCHAR(16) NOT NULL, 
    hour DOUBLE PRECISION NOT NULL, 
    count BIGINT NOT NULL, 
    worst DOUBLE PRECISION NOT NULL, 
    replica VARCHAR(64) NOT NULL, 
    CONSTRAINT pk_evidence PRIMARY KEY (id)
);

CREATE INDEX ix_evidence_peer_hour ON evidence (peer, hour);

CREATE INDEX ix_evidence_hour ON evidence (hour);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE volunteers ADD COLUMN room INTEGER;

ALTER TABLE volunteers ADD COLUMN cached TEXT DEFAULT '' NOT NULL;

ALTER TABLE volunteers ADD COLUMN settled_at DOUBLE PRECISION DEFAULT '0' NOT NULL;

CREATE TABLE moves (
    id SERIAL NOT NULL, 
    at DOUBLE PRECISION NOT NULL, 
    model VARCHAR(200) NOT NULL, 
    peer VARCHAR(16) NOT NULL, 
    from_start INTEGER NOT NULL, 
    from_end INTEGER NOT NULL, 
    to_start INTEGER NOT NULL, 
    to_end INTEGER NOT NULL, 
    gain DOUBLE PRECISION NOT NULL, 
    members VARCHAR(32) NOT NULL, 
    CONSTRAINT pk_moves PRIMARY KEY (id)
);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE INDEX ix_tokens_revoked_at ON tokens (revoked_at);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

CREATE TABLE replicas (
    name VARCHAR(64) NOT NULL, 
    seen_at DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_replicas PRIMARY KEY (name)
);

INSERT INTO replicas (name, seen_at) SELECT replica, max(seen_at) FROM volunteers GROUP BY replica;

ALTER TABLE volunteers DROP COLUMN seen_at;

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

-- Running upgrade 0005 -> 0006

ALTER TABLE replicas ADD COLUMN replies TEXT DEFAULT '{}' NOT NULL;

CREATE TABLE files (
    id VARCHAR(40) NOT NULL, 
    token_id VARCHAR(12) NOT NULL, 
    filename VARCHAR(255) NOT NULL, 
    purpose VARCHAR(16) NOT NULL, 
    bytes BIGINT NOT NULL, 
    created_at DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_files PRIMARY KEY (id), 
    CONSTRAINT fk_files_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

CREATE INDEX ix_files_token_id_created_at ON files (token_id, created_at);

CREATE TABLE batches (
    id VARCHAR(40) NOT NULL, 
    token_id VARCHAR(12) NOT NULL, 
    endpoint VARCHAR(64) NOT NULL, 
    input_file_id VARCHAR(40) NOT NULL, 
    status VARCHAR(16) NOT NULL, 
    created_at DOUBLE PRECISION NOT NULL, 
    expires_at DOUBLE PRECISION NOT NULL, 
    in_progress_at DOUBLE PRECISION, 
    finalizing_at DOUBLE PRECISION, 
    completed_at DOUBLE PRECISION, 
    failed_at DOUBLE PRECISION, 
    expired_at DOUBLE PRECISION, 
    cancelling_at DOUBLE PRECISION, 
    cancelled_at DOUBLE PRECISION, 
    output_file_id VARCHAR(40), 
    error_file_id VARCHAR(40), 
    total INTEGER NOT NULL, 
    completed INTEGER NOT NULL, 
    failed INTEGER NOT NULL, 
    errors TEXT, 
    labels TEXT, 
    holder VARCHAR(32), 
    leased_until DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_batches PRIMARY KEY (id), 
    CONSTRAINT fk_batches_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

CREATE INDEX ix_batches_token_id_created_at ON batches (token_id, created_at);

CREATE INDEX ix_batches_status ON batches (status);

CREATE INDEX ix_batches_input_file_id ON batches (input_file_id);

CREATE TABLE batch_chunks (
    batch_id VARCHAR(40) NOT NULL, 
    number INTEGER NOT NULL, 
    first_line INTEGER NOT NULL, 
    lines INTEGER NOT NULL, 
    "offset" BIGINT NOT NULL, 
    size BIGINT NOT NULL, 
    holder VARCHAR(32), 
    leased_until DOUBLE PRECISION NOT NULL, 
    running INTEGER NOT NULL, 
    CONSTRAINT pk_batch_chunks PRIMARY KEY (batch_id, number), 
    CONSTRAINT fk_batch_chunks_batch_id_batches FOREIGN KEY(batch_id) REFERENCES batches (id)
);

CREATE INDEX ix_batch_chunks_number ON batch_chunks (number, batch_id);

CREATE INDEX ix_batch_chunks_leased_until ON batch_chunks (leased_until);

CREATE TABLE batch_answers (
    batch_id VARCHAR(40) NOT NULL, 
    line INTEGER NOT NULL, 
    is_error BOOLEAN NOT NULL, 
    output TEXT NOT NULL, 
    CONSTRAINT pk_batch_answers PRIMARY KEY (batch_id, line), 
    CONSTRAINT fk_batch_answers_batch_id_batches FOREIGN KEY(batch_id) REFERENCES batches (id)
);

CREATE INDEX ix_batch_answers_is_error ON batch_answers (batch_id, is_error, line);

CREATE TABLE idempotency_keys (
    token_id VARCHAR(12) NOT NULL, 
    key VARCHAR(255) NOT NULL, 
    fingerprint VARCHAR(64) NOT NULL, 
    answer TEXT NOT NULL, 
    created_at DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (token_id, key), 
    CONSTRAINT fk_idempotency_keys_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE TABLE webhooks (
    id VARCHAR(40) NOT NULL, 
    token_id VARCHAR(12) NOT NULL, 
    url TEXT NOT NULL, 
    payload TEXT NOT NULL, 
    created_at DOUBLE PRECISION NOT NULL, 
    attempts INTEGER NOT NULL, 
    due_at DOUBLE PRECISION NOT NULL, 
    CONSTRAINT pk_webhooks PRIMARY KEY (id), 
    CONSTRAINT fk_webhooks_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

CREATE INDEX ix_webhooks_due_at ON webhooks (due_at);

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

-- Running upgrade 0006 -> 0007

CREATE TABLE usage (
    token_id VARCHAR(12) NOT NULL, 
    day DOUBLE PRECISION NOT NULL, 
    model VARCHAR(200) NOT NULL, 
    replies BIGINT NOT NULL, 
    prompt_tokens BIGINT NOT NULL, 
    cached_tokens BIGINT NOT NULL, 
    completion_tokens BIGINT NOT NULL, 
    CONSTRAINT pk_usage PRIMARY KEY (token_id, day, model)
);

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

-- Running upgrade 0007 -> 0008

ALTER TABLE tokens ADD COLUMN parent VARCHAR(12);

ALTER TABLE tokens ADD COLUMN expires_at DOUBLE PRECISION;

ALTER TABLE tokens ADD COLUMN replies_at_once INTEGER;

ALTER TABLE tokens ADD COLUMN tokens_a_day BIGINT;

CREATE INDEX ix_tokens_parent ON tokens (parent);

CREATE INDEX ix_tokens_expires_at ON tokens (expires_at);

CREATE INDEX ix_tokens_created_at ON tokens (created_at);

CREATE TABLE contributions (
    peer VARCHAR(16) NOT NULL, 
    day DOUBLE PRECISION NOT NULL, 
    name VARCHAR(80) NOT NULL, 
    blocks_steps BIGINT NOT NULL, 
    replies BIGINT NOT NULL, 
    hours INTEGER NOT NULL, 
    CONSTRAINT pk_contributions PRIMARY KEY (peer, day)
);

CREATE INDEX ix_contributions_day ON contributions (day);

CREATE TABLE quarantines (
    id SERIAL NOT NULL, 
    peer VARCHAR(16) NOT NULL, 
    at DOUBLE PRECISION NOT NULL, 
    reason VARCHAR(500) NOT NULL, 
    by VARCHAR(12), 
    ended_at DOUBLE PRECISION, 
    end_reason VARCHAR(500), 
    ended_by VARCHAR(12), 
    CONSTRAINT pk_quarantines PRIMARY KEY (id)
);

CREATE INDEX ix_quarantines_peer ON quarantines (peer);

CREATE INDEX ix_quarantines_ended_at ON quarantines (ended_at);

UPDATE alembic_version SET version_num='0008' WHERE alembic_version.version_num = '0007';

-- Running upgrade 0008 -> 0009

ALTER TABLE batches ADD COLUMN prompt_tokens BIGINT;

ALTER TABLE batches ADD COLUMN cached_tokens BIGINT;

ALTER TABLE batches ADD COLUMN completion_tokens BIGINT;

ALTER TABLE batch_answers ADD COLUMN prompt_tokens BIGINT;

ALTER TABLE batch_answers ADD COLUMN cached_tokens BIGINT;

ALTER TABLE batch_answers ADD COLUMN completion_tokens BIGINT;

CREATE INDEX ix_usage_day ON usage (day);

UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008';

COMMIT;

