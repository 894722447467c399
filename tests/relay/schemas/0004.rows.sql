INSERT INTO tokens (id, kind, name, secret_hash, created_at, revoked_at, last_used_at) VALUES
    ('0123456789ab', 'volunteer', 'Ada', 'c55b8217d0fdcb19ad6c7bbf8a3a0df4e2a1de9e5e5c1ae4a6c2d5d3ab36e79a', 1000.5, NULL, 2000.25),
    ('ba9876543210', 'client', 'Grace', 'd55b8217d0fdcb19ad6c7bbf8a3a0df4e2a1de9e5e5c1ae4a6c2d5d3ab36e79a', 1001.5, 3000.5, NULL);
INSERT INTO secrets (name, value) VALUES
    ('route', 'abababababababababababababababababababababababababababababababab');
INSERT INTO models (name, position, from_settings, added_at, reported_by, digest, family, blocks, hidden_size, parameters, context) VALUES
    ('corolla-demo', 0, TRUE, 1000.5, '00000000000000aa', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'llama', 8, 64, 176000000000, 8192),
    ('added/model', 1, FALSE, 1001.5, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO volunteers (peer, token_id, name, device, memory, replica, state, joined_at, seen_at, model, start, "end", head, dtype, quantization, blocks_per_second, room, cached, settled_at) VALUES
    ('00000000000000aa', '0123456789ab', 'at home', 'cpu', 17179869184, 'relay-1', 'serving', 1500.5, 1600.5, 'corolla-demo', 0, 8, TRUE, 'float32', 'none', 210.5, 12, '0:8,10:12', 1500.5),
    ('00000000000000bb', '0123456789ab', 'at work', 'cuda', 85899345920, 'relay-2', 'connected', 1501.5, 1601.5, NULL, NULL, NULL, FALSE, NULL, NULL, 0, NULL, '', 0);
INSERT INTO evidence (peer, kind, hour, count, worst, replica) VALUES
    ('00000000000000aa', 'answered', 1756000800, 120, 0, 'relay-1'),
    ('00000000000000aa', 'vanished', 1756000800, 1, 3, '');
INSERT INTO moves (at, model, peer, from_start, from_end, to_start, to_end, gain, members) VALUES
    (1550.5, 'corolla-demo', '00000000000000aa', 4, 8, 0, 8, 12.5, 'abababababababababababababababab');
