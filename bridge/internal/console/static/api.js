// The console's own API, and a client of its gateway. The token came in the address's
// fragment, which browsers send to nobody; it is kept for this tab, and taken out of the
// address.

import { Tebra } from './v1/tebra.js';

const handed = location.hash.slice(1);
if (/^[A-Z2-7]{20,}$/.test(handed)) {
  sessionStorage.setItem('token', handed);
  history.replaceState(null, '', location.pathname);
}

const token = () => sessionStorage.getItem('token');

const ask = (path, options = {}) => fetch(path, {
  ...options, headers: { Authorization: 'Bearer ' + token(), ...options.headers },
});

/** Returns a client that sends requests in a user's name. The answers that it gets hold no data. */
export const clientFor = (user) => new Tebra({
  url: location.origin, token: () => token() + '.' + encodeURIComponent(user), timeout: 0, linger: 5000,
});

/** Asks for what a path answers with, and rejects with its error's text. */
export async function call(path, body) {
  const options = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } };
  const response = await ask(path, options).catch(() => { throw new Error('the console does not answer; does it still run?'); });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? 'the console answered with status ' + response.status);
  return answer;
}

/** Takes in the console's events for as long as the page is there. */
export async function follow(take, state) {
  for (let pause = 250; ; pause = Math.min(pause * 2, 5000)) {
    let why = 'the console is gone; trying again';
    try {
      const response = await ask('/api/events');
      if (!response.ok) why = (await response.json()).error;
      else {
        state('live', 'live');
        for await (const { event, data } of messages(response.body)) {
          pause = 250;
          take[event]?.(data);
        }
      }
    } catch { /* what is lost comes again with the next snapshot */ }
    state('lost', why);
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function* messages(body) {
  const text = new TextDecoder();
  let rest = '';
  for (const reader = body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + text.decode(value, { stream: true })).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const [, event, data] = block.match(/^event: (.*)\ndata: (.*)$/) ?? [];
      if (event) yield { event, data: JSON.parse(data) };
    }
  }
}
