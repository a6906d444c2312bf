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
