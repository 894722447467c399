INSERT INTO tokens (id, kind, name, secret_hash, created_at, revoked_at, last_used_at, parent, expires_at, replies_at_once, tokens_a_day) VALUES
    ('0123456789ab', 'volunteer', 'Ada', 'c55b8217d0fdcb19ad6c7bbf8a3a0df4e2a1de9e5e5c1ae4a6c2d5d3ab36e79a', 1000.5, NULL, 2000.25, 'ba9876543210', NULL, NULL, NULL),
    ('ba9876543210', 'client', 'Grace', 'd55b8217d0fdcb19ad6c7bbf8a3a0df4e2a1de9e5e5c1ae4a6c2d5d3ab36e79a', 1001.5, 3000.5, NULL, NULL, 4000.5, 3, 5000000000);
INSERT INTO secrets (name, value) VALUES
    ('route', 'abababababababababababababababababababababababababababababababab');
INSERT INTO models (name, position, from_settings, added_at, reported_by, digest, family, blocks, hidden_size, parameters, context) VALUES
    ('corolla-demo', 0, TRUE, 1000.5, '00000000000000aa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'llama', 8, 64, 176000000000, 8192),
    ('added/model', 1, FALSE, 1001.5, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO volunteers (peer, token_id, name, device, memory, replica, state, joined_at, model, start, "end", head, dtype, quantization, blocks_per_second, room, cached, settled_at) VALUES
    ('00000000000000aa', '0123456789ab', 'at home', 'cpu', 17179869184, 'relay-1', 'serving', 1500.5, 'corolla-demo', 0, 8, TRUE, 'float32', 'none', 210.5, 12, '0:8,10:12', 1500.5),
    ('00000000000000bb', '0123456789ab', 'at work', 'cuda', 85899345920, 'relay-2', 'connected', 1501.5, NULL, NULL, NULL, FALSE, NULL, NULL, 0, NULL, '', 0);
INSERT INTO evidence (peer, kind, hour, count, worst, replica) VALUES
    ('00000000000000aa', 'answered', 1756000800, 120, 0, 'relay-1'),
    ('00000000000000aa', 'vanished', 1756000800, 1, 3, '');
INSERT INTO moves (at, model, peer, from_start, from_end, to_start, to_end, gain, members) VALUES
    (1550.5, 'corolla-demo', '00000000000000aa', 4, 8, 0, 8, 12.5, 'abababababababababababababababab');
INSERT INTO replicas (name, seen_at) VALUES
    ('relay-1', 1600.5),
    ('relay-2', 1601.5);
INSERT INTO files (id, token_id, filename, purpose, bytes, created_at) VALUES
    ('file-0a', 'ba9876543210', 'lines.jsonl', 'batch', 5000000000, 1700.5);
INSERT INTO batches (id, token_id, endpoint, input_file_id, status, created_at, expires_at, in_progress_at, total, completed, failed, prompt_tokens, cached_tokens, completion_tokens, labels, leased_until) VALUES
    ('batch_0a', 'ba9876543210', '/v1/completions', 'file-0a', 'in_progress', 1701.5, 88101.5, 1702.5, 48, 0, 0, 0, 0, 0, '{"a":"b"}', 0);
INSERT INTO batch_chunks (batch_id, number, first_line, lines, "offset", size, holder, leased_until, running) VALUES
    ('batch_0a', 1, 16, 16, 4000, 4000, 'abab', 1710.5, 3);
INSERT INTO batch_answers (batch_id, line, is_error, output, prompt_tokens, cached_tokens, completion_tokens) VALUES
    ('batch_0a', 0, FALSE, '{}', 20, 4, 5000000000),
    ('batch_0a', 1, FALSE, '{}', NULL, NULL, NULL);
INSERT INTO idempotency_keys (token_id, key, fingerprint, answer, created_at) VALUES
    ('ba9876543210', 'once', 'abababababababababababababababababababababababababababababababab', '{}', 1701.5);
INSERT INTO webhooks (id, token_id, url, payload, created_at, attempts, due_at) VALUES
    ('evt_0a', 'ba9876543210', 'https://example.com/', '{}', 1701.5, 1, 1706.5);
INSERT INTO usage (token_id, day, model, replies, prompt_tokens, cached_tokens, completion_tokens) VALUES
    ('ba9876543210', 1756000800, 'corolla-demo', 3, 120, 20, 5000000000);
INSERT INTO contributions (peer, day, name, blocks_steps, replies, hours) VALUES
    ('00000000000000aa', 1756000800, 'at home', 5000000000, 12, 8388609);
INSERT INTO quarantines (peer, at, reason, "by", ended_at, end_reason, ended_by) VALUES
    ('00000000000000bb', 1550.5, 'nonsense', NULL, 1560.5, 'mended', NULL),
    ('00000000000000bb', 1570.5, 'nonsense again', NULL, NULL, NULL, NULL);
