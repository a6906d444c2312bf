import test from 'node:test';
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';

import { Tebra, TebraError } from './tebra.js';

/** A gateway that does what a test tells it to. */
async function gateway(t, handlers) {
  const streams = new Set();
  const seen = { posts: [], events: [], tokens: [] };
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    seen.tokens.push(request.headers.authorization);
    if (request.url.startsWith('/v1/events')) {
      seen.events.push(request.headers['last-event-id']);
      if (handlers.events?.(request, response, seen)) return;
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write('event: ready\nid: status:1-0,responses:1-0\ndata: {"type":"ready"}\n\n');
      streams.add(response);
      response.on('close', () => streams.delete(response));
      return;
    }
    const text = Buffer.concat(chunks).toString();
    const post = JSON.parse(text);
    seen.posts.push(post);
    if (handlers.post?.(post, response, seen)) return;
    response.writeHead(202, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ id: post.id, correlationId: post.correlationId, repeated: false, since: '' }));
    handlers.accepted?.(post);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.closeAllConnections(); server.close(); });
  let n = 1;
  const send = (stream, data) => {
    const text = `id: status:1-0,responses:${++n}-0\ndata: ${JSON.stringify({ type: 'update', id: n + '-0', stream: 'tebra:' + stream, data })}\n\n`;
    for (const s of streams) {
      s.write(text.slice(0, 30)); // in pieces, as networks have it
      setImmediate(() => s.write(text.slice(30)));
    }
  };
  return {
    seen, send, streams,
    answer: (post, more) => send('responses', { correlationId: post.correlationId, requestId: post.id, status: 'success', data: '{"n":1}', ...more }),
    client: (options) => {
      const c = new Tebra({ url: `http://127.0.0.1:${server.address().port}/`, token: () => 'token', timeout: 5000, ...options });
      t.after(() => c.close());
      return c;
    },
  };
}

test('an answer comes to its call, as data', async (t) => {
  const g = await gateway(t, { accepted: (post) => g.answer(post) });
  assert.deepEqual(await g.client().getProviders(), { n: 1 });
  assert.equal(g.seen.posts[0].action, 'getProviders');
});

test('an error rejects, with its code', async (t) => {
  const g = await gateway(t, { accepted: (post) => g.answer(post, { status: 'error', error: 'no', errorCode: 'rejected', data: undefined }) });
  await assert.rejects(g.client().call('x'), (e) => e instanceof TebraError && e.code === 'rejected' && e.message === 'no');
});

test('an answer that is not JSON rejects its call, and no other', async (t) => {
  const g = await gateway(t, { accepted: (post) => g.answer(post, post.action === 'bad' ? { data: '<html>' } : {}) });
  const c = g.client();
  const bad = c.call('bad');
  await assert.rejects(bad, (e) => e instanceof TebraError && e.code === 'bad_response');
  assert.deepEqual(await c.call('good'), { n: 1 });
  assert.equal(g.seen.events.length, 1);
});

test('a gateway that says when to come again, in whatever form, is not asked at once', async (t) => {
  let at;
  const g = await gateway(t, {
    post: (post, response, seen) => {
      if (seen.posts.length > 4) return false;
      at ??= performance.now();
      response.writeHead(503, { 'Retry-After': 'Sat, 28 Nov 2026 00:00:00 GMT' }).end();
      return true;
    },
    accepted: (post) => g.answer(post),
  });
  t.mock.method(Math, 'random', () => 0.2);
  await g.client().call('x');
  assert.ok(performance.now() - at >= 0.2 * (250 + 500 + 1000 + 2000) - 50, 'four refusals in ' + (performance.now() - at) + ' ms');
});

test('a connection that hangs before it begins is opened again', async (t) => {
  const g = await gateway(t, { events: (request, response, seen) => seen.events.length === 1, accepted: (post) => g.answer(post) });
  await g.client({ silence: 500, timeout: 30_000 }).call('x');
  assert.ok(g.seen.events.length >= 2);
});

test('statuses are told of', async (t) => {
  const g = await gateway(t, { accepted: (post) => {
    g.send('status', { ...post, status: 'pending' });
    setTimeout(() => g.answer(post), 20);
  } });
  const states = [];
  await g.client().call('x', {}, { onStatus: (s) => states.push(s.status) });
  assert.deepEqual(states, ['pending']);
});

test('a lost event stream is resumed from the last event', async (t) => {
  const g = await gateway(t, { accepted: (post) => {
    g.send('status', { ...post, status: 'pending' });
    setTimeout(() => g.streams.forEach((s) => s.destroy()), 30);
    const wait = setInterval(() => {
      if (g.seen.events.length < 2 || !g.streams.size) return;
      clearInterval(wait);
      g.answer(post);
    }, 5);
  } });
  await g.client().call('x');
  assert.deepEqual(g.seen.events, [undefined, 'status:1-0,responses:2-0']);
});

test('a silent event stream is opened again', async (t) => {
  const g = await gateway(t, { accepted: (post) => {
    const wait = setInterval(() => {
      if (g.seen.events.length < 2 || !g.streams.size) return;
      clearInterval(wait);
      g.answer(post);
    }, 5);
  } });
  await g.client({ silence: 500, timeout: 30_000 }).call('x');
  assert.ok(g.seen.events.length >= 2);
});

test('a request that was refused for a moment is sent again under its id', async (t) => {
  const g = await gateway(t, {
    post: (post, response, seen) => seen.posts.length === 1 && response.writeHead(503).end(),
    accepted: (post) => g.answer(post),
  });
  await g.client().call('x');
  assert.equal(g.seen.posts.length, 2);
  assert.equal(g.seen.posts[0].id, g.seen.posts[1].id);
});

test('an answer that came before this client is read, also when the request went through at its second try only', async (t) => {
  const g = await gateway(t, {
    post: (post, response, seen) => {
      if (seen.posts.length === 1) return response.writeHead(503).end();
      return response.writeHead(202).end(JSON.stringify({ ...post, repeated: true, since: 'status:9-0,responses:9-0' }));
    },
    events: (request, response) => {
      if (request.headers['last-event-id'] !== 'status:9-0,responses:9-0') return false;
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write('id: status:9-0,responses:10-0\ndata: {"stream":"tebra:responses","data":{"requestId":"r1","status":"success","data":"{\\"n\\":1}"}}\n\n');
      return true;
    },
  });
  assert.deepEqual(await g.client().call('x', {}, { id: 'r1' }), { n: 1 });
});

const at = (status, responses = status) => `status:${status}-0,responses:${responses}-0`;

/**
 * Has a gateway know all requests already, since when `since` says, and tell after a position what `log` holds of it:
 * [status, responses, stream, data] each. `seen.past` are the positions that were asked for, `open` those streams that are.
 */
function known({ since, log, refuse = () => false }) {
  const open = new Set();
  return {
    open,
    post: (post, response) => {
      response.writeHead(202).end(JSON.stringify({ id: post.id, correlationId: post.correlationId, repeated: true, since: since(post) }));
      return true;
    },
    events: (request, response, seen) => {
      const from = request.headers['last-event-id'];
      if (from === undefined) return false;
      (seen.past ??= []).push(from);
      if (refuse(response)) return true;
      const [status, responses] = from.match(/\d+(?=-)/g).map(Number);
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(`event: ready\nid: ${from}\ndata: {"type":"ready"}\n\n`);
      for (const [s, r, stream, data] of log) {
        if (stream === 'status' ? s <= status : r <= responses) continue;
        response.write(`id: ${at(s, r)}\ndata: ${JSON.stringify({ id: (stream === 'status' ? s : r) + '-0', stream: 'tebra:' + stream, data })}\n\n`);
      }
      open.add(response);
      response.on('close', () => open.delete(response));
      return true;
    },
  };
}

const until = async (condition) => {
  for (const end = Date.now() + 20_000; !condition(); await new Promise((r) => setTimeout(r, 5))) assert.ok(Date.now() < end, `never: ${condition}`);
};

test('many calls that were sent before are told what became of them over one stream more, from the earliest on', async (t) => {
  const ids = [...Array(50).keys()];
  const k = known({ since: (post) => at(9 + (post.params.n * 7 + 20) % 50), log: ids.map((n) => [60 + n, 60 + n, 'responses', { requestId: 'r' + n, status: 'success', data: `${n}` }]) });
  const post = k.post; // answered in another order than they came in
  k.post = (p, response) => setTimeout(post, (p.params.n * 13) % 50, p, response);
  const g = await gateway(t, k);
  const c = g.client();
  assert.deepEqual(await Promise.all(ids.map((n) => c.call('x', { n }, { id: 'r' + n }))), ids);
  assert.deepEqual(g.seen.past, [at(9)]);
  await until(() => !k.open.size);
});

test('a call that joins after its past was read has it read again, and no state is told twice or after a later one', async (t) => {
  const status = (n, requestId, word) => [n, 35, 'status', { requestId, status: word }];
  const log = [status(41, 'second', 'pending'), status(60, 'first', 'pending'), status(61, 'first', 'processing')];
  const k = known({ since: (post) => post.id === 'first' ? at(30, 35) : at(40, 38), log });
  const g = await gateway(t, k);
  const c = g.client();
  const states = [];
  const onStatus = (s) => states.push(s.requestId + ' ' + s.status);
  const first = c.call('x', {}, { id: 'first', onStatus });
  await until(() => states.length === 2);
  log.push([61, 56, 'responses', { requestId: 'second', status: 'success', data: '"of second"' }]);
  assert.equal(await c.call('x', {}, { id: 'second', onStatus }), 'of second');
  assert.deepEqual(g.seen.past, [at(30, 35), at(40, 35)]); // of the responses the first had not read more
  assert.deepEqual(states, ['first pending', 'first processing', 'second pending']);
  g.send('status', { correlationId: 'first', requestId: 'first', status: 'pending' }); // under an earlier ID, 2-0
  await new Promise(setImmediate); // it goes out in two pieces
  g.answer({ id: 'first', correlationId: 'first' });
  assert.deepEqual(await first, { n: 1 });
  assert.equal(states.length, 3);
  await until(() => !k.open.size);
});

test('where the past is refused for good all that wait for it reject, and whoever comes later asks again', async (t) => {
  let refusing = true;
  const k = known({
    since: () => at(9), log: [[10, 10, 'responses', { requestId: 'r3', status: 'success', data: '3' }]],
    refuse: (response) => refusing && response.writeHead(400).end('{"error":{"code":"bad_position","message":"m"}}'),
  });
  const g = await gateway(t, k);
  const c = g.client();
  const refused = (call) => assert.rejects(call, (e) => e.code === 'bad_position' && e.status === 400);
  await Promise.all([refused(c.call('x', {}, { id: 'r1' })), refused(c.call('x', {}, { id: 'r2' }))]);
  assert.equal(g.seen.past.length, 1);
  refusing = false;
  assert.equal(await c.call('x', {}, { id: 'r3' }), 3);
});

test('a call that ends takes nothing from those that read the past with it; the last one ends the stream', async (t) => {
  const k = known({ since: () => at(9), log: [] });
  const g = await gateway(t, k);
  const c = g.client();
  const stop = new AbortController();
  const aborted = c.call('x', {}, { id: 'r1', signal: stop.signal });
  const late = c.call('x', {}, { id: 'r2', timeout: 300 });
  const waiting = c.call('x', {}, { id: 'r3' });
  await until(() => k.open.size);
  stop.abort();
  await assert.rejects(aborted, { name: 'AbortError' });
  await assert.rejects(late, { name: 'TimeoutError' });
  assert.equal(k.open.size, 1);
  const [stream] = k.open;
  stream.write(`id: ${at(10)}\ndata: ${JSON.stringify({ stream: 'tebra:responses', data: { requestId: 'r3', status: 'success', data: '3' } })}\n\n`);
  assert.equal(await waiting, 3);
  await until(() => !k.open.size);
  assert.equal(g.seen.past.length, 1);
});

test('a stream of the past that is lost goes on where it was', async (t) => {
  const k = known({ since: () => at(9), log: [] });
  const g = await gateway(t, k);
  const call = g.client().call('x', {}, { id: 'r1' });
  await until(() => k.open.size);
  const [stream] = k.open;
  stream.write(`id: ${at(20)}\ndata: ${JSON.stringify({ id: '20-0', stream: 'tebra:status', data: { requestId: 'r1', status: 'pending' } })}\n\n`, () => stream.destroy());
  await until(() => g.seen.past.length === 2);
  assert.equal(g.seen.past[1], at(20));
  g.answer({ id: 'r1', correlationId: 'r1' });
  await call;
});

test('a request that hangs keeps those that were sent with it from the past for a moment only', async (t) => {
  const k = known({ since: () => at(9), log: [[10, 10, 'responses', { requestId: 'r1', status: 'success', data: '1' }]] });
  const post = k.post;
  k.post = (p, response) => p.id === 'hangs' || post(p, response);
  const g = await gateway(t, k);
  const c = g.client();
  const hangs = assert.rejects(c.call('x', {}, { id: 'hangs', timeout: 30_000 }), { code: 'closed' });
  assert.equal(await c.call('x', {}, { id: 'r1', timeout: 20_000 }), 1);
  c.close();
  await hangs;
});

test('a request that is refused for good is not sent again', async (t) => {
  const g = await gateway(t, { post: (post, response) => response.writeHead(400).end('{"error":{"code":"malformed","message":"m"}}') });
  await assert.rejects(g.client().call('x'), (e) => e.code === 'malformed' && e.status === 400);
  assert.equal(g.seen.posts.length, 1);
});

test('a refused token is refreshed once, and then given up on', async (t) => {
  const g = await gateway(t, { events: (request, response) => response.writeHead(401).end('{"error":{"code":"token_expired","message":"m"}}') });
  const asked = [];
  await assert.rejects(g.client({ token: (refresh) => { asked.push(refresh); return 't'; } }).call('x'), (e) => e.code === 'token_expired');
  assert.deepEqual(asked, [false, true]);
});

test('whoever listens is told when nothing comes any more', async (t) => {
  const g = await gateway(t, { events: (request, response, seen) => seen.events.length > 1 && response.writeHead(401).end('{"error":{"code":"token_revoked","message":"m"}}') });
  const c = g.client();
  const ended = new Promise((end) => c.subscribe(() => {}, end));
  while (!g.streams.size) await new Promise((r) => setTimeout(r, 5));
  g.streams.forEach((s) => s.end());
  assert.equal((await ended).code, 'token_revoked');
});

test('a call that takes too long, is aborted or is closed rejects', async (t) => {
  const g = await gateway(t, {});
  const c = g.client();
  await assert.rejects(c.call('x', {}, { timeout: 20 }), { name: 'TimeoutError' });
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 20);
  await assert.rejects(c.call('x', {}, { signal: stop.signal }), { name: 'AbortError' });
  setTimeout(() => c.close(), 20);
  await assert.rejects(c.call('x'), { code: 'closed' });
  await assert.rejects(c.call('x'), { code: 'closed' });
});

test('after a reset unanswered requests are sent again, and what became of them before is read', async (t) => {
  let first = true;
  const g = await gateway(t, {
    post: (post, response, seen) => {
      if (seen.posts.length < 2) return false;
      response.writeHead(202).end(JSON.stringify({ ...post, repeated: true, since: 'status:9-0,responses:9-0' }));
      const wait = setInterval(() => {
        if (!seen.events.includes('status:9-0,responses:9-0') || g.streams.size < 2) return;
        clearInterval(wait);
        g.answer(post);
      }, 5);
      return true;
    },
    accepted: () => first && (first = false, setTimeout(() => g.streams.forEach((s) => s.write('event: reset\nid: status:2-0,responses:2-0\ndata: {}\n\n')), 20)),
  });
  assert.deepEqual(await g.client().call('x'), { n: 1 });
});

test('what a listener throws does not end the stream', async (t) => {
  t.mock.method(console, 'error', () => {});
  const g = await gateway(t, { accepted: (post) => g.answer(post) });
  const c = g.client();
  c.subscribe(() => { throw new Error('of the page'); });
  await c.call('x');
  await c.call('x');
});

test('an event stream that nobody needs is closed', async (t) => {
  const g = await gateway(t, { accepted: (post) => g.answer(post) });
  await g.client({ linger: 20 }).call('x');
  while (g.streams.size) await new Promise((r) => setTimeout(r, 5));
  await g.client().call('x');
});
