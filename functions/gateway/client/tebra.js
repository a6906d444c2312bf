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

  /** Resolves with the API's data, or rejects with a TebraError, an AbortError or a TimeoutError. */
  async call(action, params = {}, { signal, timeout = this.#timeout, onStatus, id = crypto.randomUUID(), correlationId = id } = {}) {
    if (this.#closed) throw new TebraError('closed', 'the client was closed');
    if (this.#calls.has(correlationId)) throw new TebraError('duplicate', 'a call with this correlation ID is under way');
    const end = new AbortController();
    const given = AbortSignal.any([end.signal, signal].filter(Boolean));
    given.throwIfAborted();
    const timer = timeout && setTimeout(() => end.abort(new DOMException(`no answer in ${timeout} ms`, 'TimeoutError')), timeout);
    try {
      return await new Promise((resolve, reject) => {
        given.addEventListener('abort', () => reject(given.reason), { once: true });
        const call = { resolve, reject, onStatus, send: () => this.#send({ action, params, id, correlationId }, given, call) };
        this.#calls.set(correlationId, call);
        this.#open();
        // Events first, so that the answer can't pass by.
        this.#ready.promise.then(() => given.aborted || call.send()).catch(reject);
      });
    } finally {
      clearTimeout(timer);
      end.abort();
      this.#calls.delete(correlationId);
      this.#rest();
    }
  }

  /** Calls listener with every update of the user's requests; returns what ends that. */
  subscribe(listener, onEnd) {
    if (this.#closed) throw new TebraError('closed', 'the client was closed');
    this.#listeners.set(listener, onEnd);
    this.#open();
    return () => {
      this.#listeners.delete(listener);
      this.#rest();
    };
  }

  /** Ends the event stream and all calls. */
  close() {
    this.#closed = true;
    this.#fail(new TebraError('closed', 'the client was closed'));
  }

  async #send(request, signal, call) {
    const { repeated, since } = await this.#ask('/v1/requests', signal, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(request),
    }, (r) => r.json());
    if (!repeated) return;
    // It was sent before, perhaps before this client listened: what became of it since then is read beside the rest.
    this.#follow(signal, { last: since }, (name, update) => update?.data?.requestId === request.id && settle(call, update))
      .catch((error) => signal.aborted || call.reject(error));
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
    this.#wait();
    this.#follow(stop.signal, { last: '' }, this.#take).catch((error) => stop.signal.aborted || this.#fail(error));
  }

  #wait() {
    this.#ready = Promise.withResolvers?.() ?? withResolvers();
    this.#ready.promise.catch(() => {}); // there may be nobody waiting
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

  // Reads events after at.last until signal ends it, over as many connections as that takes.
  async #follow(signal, at, take) {
    for (let failures = 0; ; failures++) {
      const quiet = new AbortController();
      const either = AbortSignal.any([signal, quiet.signal]);
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

const settle = (call, { stream, data }) => {
  const { status, error, errorCode, requestId, correlationId } = data;
  const fail = (code, message) => call.reject(new TebraError(code, message, { requestId, correlationId }));
  if (!stream.endsWith(':responses')) return quietly(call.onStatus, data);
  if (status !== 'success') return fail(errorCode ?? 'error', error ?? 'the request failed');
  try {
    call.resolve(JSON.parse(data.data ?? 'null'));
  } catch { // an event that throws would come again for ever
    fail('bad_response', 'the answer is not JSON');
  }
};

const withResolvers = () => {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
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
