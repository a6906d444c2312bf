// The client of a Tebra gateway; tebra.d.ts documents it.

/** What is answered with an error; `code` is for programs. */
export class TebraError extends Error {
  constructor(code, message, more) {
    super(message);
    this.name = 'TebraError';
    this.code = code;
    Object.assign(this, more);
  }
}

const actions = ['syncSchedule', 'getAppointments', 'getPatient', 'getPatients', 'searchPatients', 'getProviders',
  'testConnection', 'health', 'getHealthStatus', 'createAppointment', 'updateAppointment'];

/** @type {typeof import('./tebra.d.ts').Tebra} */
export class Tebra {
  #url; #token; #timeout; #silence; #linger; #fetch;
  #calls = new Map(); // by correlation ID
  #listeners = new Map(); // to what is told of the end
  #stream; // the AbortController of the event stream, while one is wanted
  #ready; // {promise, resolve, reject}: events come, from here on none is missed
  #posts = new Set(); // what is being sent, as promises
  #past; // {last, calls, stop, again}: the stream of calls that were sent before; over without any
  #idle;
  #closed = false;

  constructor({ url, token, timeout = 30_000, silence = 40_000, linger = 30_000, fetch }) {
    this.#url = url.replace(/\/+$/, '');
    this.#token = token;
    this.#timeout = timeout;
    this.#silence = silence;
    this.#linger = linger;
    this.#fetch = fetch ?? ((...a) => globalThis.fetch(...a));
  }

  async call(action, params = {}, { signal, timeout = this.#timeout, onStatus, id = crypto.randomUUID(), correlationId = id } = {}) {
    if (this.#closed) throw new TebraError('closed', 'the client was closed');
    if (this.#calls.has(correlationId)) throw new TebraError('duplicate', 'a call with this correlation ID is under way');
    const end = new AbortController();
    const given = AbortSignal.any([end.signal, signal].filter(Boolean));
    given.throwIfAborted();
    const timer = timeout && setTimeout(() => end.abort(new DOMException(`no answer in ${timeout} ms`, 'TimeoutError')), timeout);
    let call;
    try {
      return await new Promise((resolve, reject) => {
        given.addEventListener('abort', () => reject(given.reason), { once: true });
        call = { id, told: '', resolve, reject, onStatus, send: () => this.#send({ action, params, id, correlationId }, given, call) };
        this.#calls.set(correlationId, call);
        this.#open();
        // Events first, so that the answer can't pass by.
        this.#ready.promise.then(() => given.aborted || call.send()).catch(reject);
      });
    } finally {
      clearTimeout(timer);
      end.abort();
      this.#calls.delete(correlationId);
      const { past } = call;
      if (past?.calls.delete(call) && !past.calls.size) past.stop.abort();
      this.#rest();
    }
  }

  subscribe(listener, onEnd) {
    if (this.#closed) throw new TebraError('closed', 'the client was closed');
    this.#listeners.set(listener, onEnd);
    this.#open();
    return () => {
      this.#listeners.delete(listener);
      this.#rest();
    };
  }

  close() {
    this.#closed = true;
    this.#fail(new TebraError('closed', 'the client was closed'));
  }

  async #send(request, signal, call) {
    const sent = this.#ask('/v1/requests', signal, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request),
    }, (r) => r.json());
    this.#posts.add(sent);
    try {
      const { repeated, since } = await sent;
      if (repeated && !signal.aborted) this.#catchUp(call, since);
    } finally {
      this.#posts.delete(sent);
    }
  }

  // What became of what was sent before, perhaps before this client listened, is read beside the rest: one stream for all,
  // from where the first was sent, and once more for one that was sent before that.
  #catchUp(call, since) {
    const going = this.#past?.calls.size;
    const past = call.past = going ? this.#past : (this.#past = { last: since, calls: new Set(), stop: new AbortController() });
    const { last, calls, stop: { signal } } = past;
    calls.add(call);
    past.last = earlier(last, since);
    if (past.last !== last) past.again?.();
    if (going) return;
    // What is sent together is mostly answered together: then it begins once.
    Promise.race([Promise.allSettled(this.#posts), sleep(2000, signal)])
      .then(() => this.#follow(signal, past, (name, update) => {
        for (const one of calls) if (one.id === update?.data?.requestId) settle(one, update);
      }))
      .catch((error) => {
        for (const one of calls) one.reject(error);
        calls.clear(); // whoever comes now needs another
      });
  }

  // Asks until there is an answer that asking again would not change.
  async #ask(path, signal, { headers, ...init }, read, again = true) {
    let refresh = false;
    for (let tries = 0; ; tries++) {
      let wait = Math.random() * Math.min(8000, 250 * 2 ** tries);
      let response;
      const token = await this.#token(refresh);
      try {
        response = await this.#fetch(this.#url + path, {
          ...init, headers: { ...headers, Authorization: `Bearer ${token}` }, signal, credentials: 'omit', cache: 'no-store',
        });
        if (response.ok) return await read(response);
      } catch (error) {
        if (signal.aborted || !again) throw error;
      }
      if (response && !response.ok) {
        const { error } = await response.json().catch(() => ({}));
        const retryAfter = Number(response.headers.get('Retry-After')) * 1000 || 0; // a date is none of the gateway's
        const { status } = response;
        const first401 = status === 401 && !refresh;
        if (!first401 && status < 500 && status !== 429 && status !== 408) {
          throw new TebraError(error?.code ?? 'http_' + status, error?.message ?? 'the gateway answered ' + status, { status });
        }
        refresh = first401;
        wait = first401 ? 0 : retryAfter + wait;
      }
      await sleep(wait, signal);
    }
  }

  // Opens the event stream, unless it is open.
  #open() {
    clearTimeout(this.#idle);
    if (this.#stream) return;
    const stop = this.#stream = new AbortController();
    const ready = this.#ready = {};
    ready.promise = new Promise((resolve, reject) => Object.assign(ready, { resolve, reject }));
    ready.promise.catch(() => {}); // there may be nobody waiting
    this.#follow(stop.signal, { last: '' }, this.#take).catch((error) => stop.signal.aborted || this.#fail(error));
  }

  // Ends the event stream when nobody has needed it for a while.
  #rest() {
    clearTimeout(this.#idle);
    if (this.#calls.size || this.#listeners.size || !this.#stream) return;
    this.#idle = setTimeout(() => this.#end(), this.#linger);
    this.#idle.unref?.();
  }

  #end() {
    clearTimeout(this.#idle);
    this.#stream?.abort();
    this.#stream = undefined;
  }

  #fail(error) {
    this.#end();
    this.#ready?.reject(error);
    for (const call of this.#calls.values()) call.reject(error);
    const ends = [...this.#listeners.values()];
    this.#listeners.clear();
    for (const onEnd of ends) quietly(onEnd, error);
  }

  // Reads events after at.last until signal ends it, over as many connections as that takes; at.again makes another.
  async #follow(signal, at, take) {
    for (let failures = 0; ; failures++) {
      const quiet = new AbortController();
      const either = AbortSignal.any([signal, quiet.signal]);
      at.again = () => quiet.abort();
      let timer;
      const alive = () => {
        clearTimeout(timer);
        timer = setTimeout(() => quiet.abort(), this.#silence);
      };
      alive(); // a connection may hang before it begins
      try {
        await this.#ask('/v1/events', either, { headers: at.last ? { 'Last-Event-ID': at.last } : {} }, async (response) => {
          alive();
          const text = new TextDecoder();
          let rest = '';
          for (const reader = response.body.getReader(); ;) {
            const { done, value } = await reader.read();
            either.throwIfAborted(); // at.last may have been moved
            if (done) return;
            alive();
            const blocks = (rest + text.decode(value, { stream: true })).split('\n\n');
            rest = blocks.pop();
            for (const block of blocks) {
              const { event = 'message', id, data } = parse(block);
              take(event, data && JSON.parse(data));
              at.last = id ?? at.last;
              failures = 0;
            }
          }
        }, false);
      } catch (error) {
        if (signal.aborted || error instanceof TebraError) throw error;
      } finally {
        clearTimeout(timer);
      }
      await sleep(Math.random() * Math.min(8000, 250 * 2 ** failures), signal);
    }
  }

  #take = (name, update) => {
    if (name === 'ready') this.#ready.resolve();
    // Answers may have passed by: an id that is sent again is not called again, its answer is repeated.
    if (name === 'reset') for (const call of this.#calls.values()) call.send().catch(call.reject);
    if (name !== 'message' || !update) return;
    for (const listener of this.#listeners.keys()) quietly(listener, update);
    const call = this.#calls.get(update.data.correlationId);
    if (call) settle(call, update);
  };
}

for (const action of actions) {
  Tebra.prototype[action] = function (params, options) { return this.call(action, params, options); };
}

const parse = (block) => {
  const fields = {};
  for (const line of block.split('\n')) {
    const at = line.indexOf(':');
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return fields;
};

// An ID as text that compares.
const order = (id) => id.replace(/\d+/g, (n) => n.padStart(20, 0));

// The earlier of two positions, stream by stream.
const earlier = (a, b) => {
  const ids = b.match(/\d+-\d+/g);
  return a.replace(/\d+-\d+/g, (id) => {
    const other = ids.shift();
    return order(other) < order(id) ? other : id;
  });
};

const settle = (call, { id, stream, data }) => {
  const { status, error, errorCode, requestId, correlationId } = data;
  const fail = (code, message) => call.reject(new TebraError(code, message, { requestId, correlationId }));
  if (!stream.endsWith(':responses')) {
    if (order(id) <= call.told) return; // the other stream was first
    call.told = order(id);
    return quietly(call.onStatus, data);
  }
  if (status !== 'success') return fail(errorCode ?? 'error', error ?? 'the request failed');
  try {
    call.resolve(JSON.parse(data.data ?? 'null'));
  } catch { // an event that throws would come again for ever
    fail('bad_response', 'the answer is not JSON');
  }
};

// What a page does with an update must not end the stream.
const quietly = (f, ...args) => {
  try {
    f?.(...args);
  } catch (error) {
    console.error(error);
  }
};

const sleep = (ms, signal) => new Promise((resolve, reject) => {
  if (signal.aborted) return reject(signal.reason);
  const timer = setTimeout(done, ms, resolve);
  const ended = () => done(() => reject(signal.reason));
  signal.addEventListener('abort', ended, { once: true });
  function done(then) {
    clearTimeout(timer);
    signal.removeEventListener('abort', ended);
    then();
  }
});
