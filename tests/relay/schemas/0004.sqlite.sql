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
    created_at DOUBLE NOT NULL, 
    revoked_at DOUBLE, 
    last_used_at DOUBLE, 
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
    added_at DOUBLE NOT NULL, 
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
    joined_at DOUBLE NOT NULL, 
    seen_at DOUBLE NOT NULL, 
    model VARCHAR(200), 
    start INTEGER, 
    "end" INTEGER, 
    head BOOLEAN NOT NULL, 
    dtype VARCHAR(16), 
    quantization VARCHAR(16), 
    blocks_per_second DOUBLE NOT NULL, 
    CONSTRAINT pk_volunteers PRIMARY KEY (peer), 
    CONSTRAINT fk_volunteers_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;

-- Running upgrade 0001 -> 0002

CREATE TABLE evidence (
    id INTEGER NOT NULL, 
    peer VARCHAR(16) NOT NULL, 
    kind VARCHAR(16) NOT NULL, 
    hour DOUBLE NOT NULL, 
    count BIGINT NOT NULL, 
    worst DOUBLE NOT NULL, 
    replica VARCHAR(64) NOT NULL, 
    CONSTRAINT pk_evidence PRIMARY KEY (id)
);

CREATE INDEX ix_evidence_peer_hour ON evidence (peer, hour);

CREATE INDEX ix_evidence_hour ON evidence (hour);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE volunteers ADD COLUMN room INTEGER;

ALTER TABLE volunteers ADD COLUMN cached TEXT DEFAULT '' NOT NULL;

ALTER TABLE volunteers ADD COLUMN settled_at DOUBLE DEFAULT '0' NOT NULL;

CREATE TABLE moves (
    id INTEGER NOT NULL, 
    at DOUBLE NOT NULL, 
    model VARCHAR(200) NOT NULL, 
    peer VARCHAR(16) NOT NULL, 
    from_start INTEGER NOT NULL, 
    from_end INTEGER NOT NULL, 
    to_start INTEGER NOT NULL, 
    to_end INTEGER NOT NULL, 
    gain DOUBLE NOT NULL, 
    members VARCHAR(32) NOT NULL, 
    CONSTRAINT pk_moves PRIMARY KEY (id)
);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE INDEX ix_tokens_revoked_at ON tokens (revoked_at);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

COMMIT;

