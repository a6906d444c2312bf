import { call, clientFor, follow } from './api.js';
import { charts } from './charts.js';

const $ = (id) => document.getElementById(id);

// Makes an element; what it says is text, never HTML.
const el = (tag, props = {}, ...children) => {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children.filter((c) => c != null));
  return e;
};
const cell = (text, className = '') => el('td', { className, title: text?.length > 24 ? text : '' }, text ?? '');

const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
const span = (ms) => ms < 1000 ? Math.max(0, Math.round(ms)) + ' ms' : ms < 60e3 ? (ms / 1000).toFixed(1) + ' s' : ms < 36e5 ? Math.round(ms / 60e3) + ' min' : (ms / 36e5).toFixed(1) + ' h';
const short = (id) => id.length > 13 ? id.slice(0, 12) + '…' : id;
const bytes = (n) => n < 1024 ? n + ' B' : n < 1 << 20 ? (n / 1024).toFixed(0) + ' KiB' : (n / (1 << 20)).toFixed(1) + ' MiB';

const say = (place, text, bad = false) => {
  place.textContent = text;
  place.dataset.bad = bad;
  place.dataset.good = false;
};

// Does something, and not again before it is done, and says what went wrong. The button
// stays enabled meanwhile: it would lose the focus.
const doing = async (button, place, act) => {
  if (button.ariaBusy) return;
  button.ariaBusy = 'true';
  try {
    await act();
  } catch (error) {
    say(place, error.message, true);
  } finally {
    button.ariaBusy = null;
  }
};

// ---- Requests ----

const mostRequests = 200;
const requests = new Map(); // by user and ID, as they came
const keyOf = (r) => JSON.stringify([r.userId, r.requestId]);

const keep = (all) => {
  for (const r of all ?? []) {
    const known = requests.get(keyOf(r));
    if (known?.arrived && known.arrived !== r.arrived) requests.delete(keyOf(r)); // it came again: it goes to the end
    requests.set(keyOf(r), { ...r, path: pathOf(known, r) });
  }
  for (const k of requests.keys()) {
    if (requests.size <= mostRequests) break;
    requests.delete(k);
  }
};

// The states that a request went through; of some that were before this page only the last is known.
const pathOf = (known, r) => {
  const path = known && !(Date.parse(known.arrived) > Date.parse(r.arrived)) ? [...known.path] : [];
  const state = r.status || (r.errorCode ? 'unanswerable' : 'asked');
  if (path.at(-1) !== state) path.push(state);
  return path.slice(-5);
};

const progress = (r) => el('td', { className: 'progress' }, ...r.path.map((state, n) =>
  el('span', { className: n === r.path.length - 1 ? 'now ' + state : '' }, state)));

const ended = (r) => r.status === 'success' || r.status === 'error';
const took = (r) => r.arrived && span((ended(r) ? Date.parse(r.changed) : Date.now()) - Date.parse(r.arrived));

const rowOf = (r) => {
  const open = el('button', { className: 'link', title: 'What became of ' + r.requestId }, short(r.requestId));
  open.dataset.key = keyOf(r);
  open.addEventListener('click', () => showRequest(r));
  return el('tr', {}, cell(r.arrived && clock(r.arrived)), cell(r.action), cell(r.userId), progress(r), cell(String(r.attempts || ''), 'number'),
    cell(took(r), 'number'), cell(r.errorCode), el('td', {}, open));
};

const fits = (r, words) => words.every((w) => [r.action, r.userId, r.status, r.requestId, r.correlationId, r.errorCode].join(' ').toLowerCase().includes(w));

const drawRequests = () => {
  if ($('hold').checked) return;
  const words = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = [...requests.values()].filter((r) => fits(r, words)).reverse();
  const body = $('requests').tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  body.replaceChildren(...shown.map(rowOf));
  if (focused) [...body.querySelectorAll('button')].find((b) => b.dataset.key === focused)?.focus({ preventScroll: true });
  $('count').textContent = shown.length === requests.size ? (shown.length === 1 ? '1 request' : `${shown.length} requests`) : `${shown.length} of ${requests.size} requests`;
};

let drawing;
const drawSoon = () => { drawing ??= requestAnimationFrame(() => { drawing = undefined; drawRequests(); }); };

// ---- Standing ----

const fill = (table, rows) => $(table).tBodies[0].replaceChildren(...rows.map((cells) => el('tr', {}, ...cells)));
const age = (now, at) => at ? span(Date.parse(now) - Date.parse(at)) : '';

const drawStanding = (s) => {
  if (!s) return;
  const concerns = s.trouble ? [{ what: s.trouble, do: '' }] : s.concerns;
  $('concerns').replaceChildren(...concerns.map((c) => el('li', {}, el('b', {}, c.what), c.do && ': ' + c.do)));
  if (s.trouble) return;
  const numbers = [
    ['Waiting unread', s.lag < 0 ? '?' : s.lag], ['In a bridge’s hand', s.inHand], ['Parked', s.parked], ['In flight', s.inFlight],
    ['Breaker', s.breaker.state], ['Bridges', s.bridges.length],
  ];
  $('numbers').replaceChildren(...numbers.map(([name, value]) =>
    el('div', {}, el('dt', {}, name), el('dd', { className: (name === 'Breaker' && value !== 'closed') || (name === 'Bridges' && !value) ? 'bad' : '' }, String(value)))));
  fill('streams', s.streams.map((x) => [cell(x.name), cell(x.length.toLocaleString(), 'number'), cell(age(s.at, x.oldest), 'number')]));
  fill('lanes', s.lanes.map((x) => [cell(x.name), cell(x.open, 'number'), cell(x.retrying, 'number'), cell(x.parked, 'number'), cell(x.interval ? x.interval.toLocaleString() + ' ms' : 'no rate', 'number')]));
  fill('bridges', s.bridges.map((x) => [el('td', { title: x.consumer }, x.consumer.length > 16 ? x.consumer.slice(0, 15) + '…' : x.consumer), cell(x.version), cell(age(s.at, x.started), 'number'), cell(x.published.toLocaleString(), 'number'), cell(bytes(x.memory), 'number'), cell(x.gate || 'yes', x.gate ? 'bad' : '')]));
};

// ---- Details ----

let reveal; // what the button that shows contents does; undefined while nothing is open

// What comes late goes below the buttons, which stay where somebody is about to press them.
const openDetail = (title, about, steps, show) => {
  $('detail-title').textContent = title;
  $('detail-facts').replaceChildren(facts(about));
  $('detail-steps').replaceChildren(...steps);
  $('contents').replaceChildren();
  reveal = show;
  if (!$('detail').open) $('detail').showModal();
};

const facts = (pairs) => el('dl', { className: 'facts' }, ...pairs.filter(([, v]) => v).flatMap(([k, v]) => [el('dt', {}, k), el('dd', {}, v)]));
const content = (name, value) => value == null || value === '' ? [] : [el('h3', {}, name), el('pre', { tabIndex: 0 }, typeof value === 'string' ? value : JSON.stringify(value, null, 2))];

const showRequest = async (r) => {
  const query = { id: r.requestId, userId: r.userId };
  const steps = el('table', {}, el('thead', {}, el('tr', {}, ...['At', 'What', 'Then', 'Why'].map((h) => el('th', { scope: 'col' }, h)))), el('tbody'));
  const state = el('p', { className: 'note' }, 'Looking…');
  openDetail(r.action, [['Request', r.requestId], ['Correlation', r.correlationId !== r.requestId && r.correlationId], ['User', r.userId], ['Replay of', r.replayOf]], [state, steps], async () => {
    const { steps } = await call('/api/trace', { ...query, payloads: true });
    const all = steps.flatMap((s) => [...content('Params', s.params), ...content('Data', s.data), ...content('Error', s.error)]);
    return all.length ? all : [el('p', { className: 'note' }, 'It holds nothing any more.')];
  });
  try {
    const trace = await call('/api/trace', { ...query, payloads: false });
    steps.tBodies[0].replaceChildren(...trace.steps.map((s) => el('tr', {}, cell(clock(s.at)), cell(s.event + (s.attempt && s.event === 'attempt' ? ' ' + s.attempt : '')), cell(s.status), cell(s.errorCode ? `${s.errorCode}: ${s.meaning}` : '', 'long'))));
    state.remove();
  } catch (error) {
    state.textContent = error.message;
  }
};

$('payloads').addEventListener('click', () => doing($('payloads'), $('contents'), async () => {
  const asked = reveal;
  const contents = await asked().catch((error) => [el('p', { className: 'note bad' }, error.message)]);
  if (reveal === asked) $('contents').replaceChildren(...contents); // else another is open by now, or none
}));
$('close').addEventListener('click', () => $('detail').close());
$('detail').addEventListener('close', () => {
  reveal = undefined;
  $('contents').replaceChildren();
});

// ---- Dead letters ----

let letters = [];
const chosen = () => [...$('letters').tBodies[0].querySelectorAll('input:checked')].map((box) => box.value);

const chose = () => {
  const n = chosen().length;
  $('replay').disabled = $('drop').disabled = !n;
  $('all').checked = n > 0 && n === letters.length;
  $('all').indeterminate = n > 0 && n < letters.length;
};

const letterRow = (l) => {
  const box = el('input', { type: 'checkbox', value: l.id, ariaLabel: 'Choose letter ' + l.id });
  box.addEventListener('change', chose);
  const open = el('button', { className: 'link', title: 'Look at letter ' + l.id }, short(l.id));
  open.addEventListener('click', () => doing(open, $('acted'), () => showLetter(l)));
  return el('tr', {}, el('td', {}, box), cell(new Date(l.publishedAt).toLocaleString([], { hour12: false })), el('td', { title: l.meaning }, l.reason), cell(l.action), cell(l.userId), cell(l.bytes.toLocaleString(), 'number'), el('td', {}, open));
};

const look = async () => {
  const found = await call('/api/letters');
  letters = found.letters;
  $('letters').hidden = !letters.length;
  $('letters').tBodies[0].replaceChildren(...letters.map(letterRow));
  chose();
  return !letters.length ? 'There are none.' : `${letters.length}${found.more ? ' or more' : ''}, oldest first.`;
};

const showLetter = async (l) => {
  const { forecast } = await call('/api/letters/show', { id: l.id, payloads: false });
  openDetail('Dead letter ' + l.id, [['Reason', `${l.reason}: ${l.meaning}`], ['Problem', l.problem], ['Action', l.action], ['User', l.userId], ['Request', l.requestId], ['Published', new Date(l.publishedAt).toLocaleString()], ['A replay', words[forecast.outcome] + (forecast.why ? ': ' + forecast.why : '')]], [], async () => {
    const { payload: p } = await call('/api/letters/show', { id: l.id, payloads: true });
    return [...content('Params', p.params), ...content('Metadata', p.metadata), ...content('Fields', p.fields), ...content('Data', p.data)];
  });
};

const words = {
  would_replay: 'would put it back on the stream', would_acknowledge: 'was done before; it would only be taken off', replayed: 'replayed', acknowledged: 'had been replayed before',
  dropped: 'dropped', refused: 'refused', not_found: 'not found any more', not_done: 'not done', unknown: 'perhaps dropped',
};

const confirmed = (title, text, button, force) => new Promise((done) => {
  $('confirm-title').textContent = title;
  $('confirm-text').textContent = text;
  $('confirm-yes').textContent = button;
  $('confirm-yes').dataset.danger = !force; // what is dropped is gone
  $('force-field').hidden = !force;
  $('force').checked = false;
  $('confirm').returnValue = '';
  $('confirm').addEventListener('close', () => done($('confirm').returnValue === 'yes'), { once: true });
  $('confirm').showModal();
});

const tell = ({ results, error }) => {
  const counts = Map.groupBy(results, (r) => words[r.outcome]);
  const why = results.find((r) => r.why)?.why;
  return [[...counts].map(([word, all]) => `${all.length} ${word}`).join(', '), why, error].filter(Boolean).join('; ');
};

const act = (button, path, title, text, yes, force) => button.addEventListener('click', () => doing(button, $('acted'), async () => {
  const ids = chosen();
  const many = ids.length === 1 ? 'one letter' : ids.length + ' letters';
  if (!await confirmed(title.replace('#', many), text, yes, force)) return;
  say($('acted'), 'Working…');
  const report = await call(path, force ? { ids, force: $('force').checked } : { ids });
  const told = tell(report);
  await look();
  say($('acted'), told, !!report.error || report.results.some((r) => ['refused', 'not_done', 'unknown'].includes(r.outcome)));
}).finally(chose));

act($('replay'), '/api/letters/replay', 'Replay #?', 'Each request goes back on the stream under its own ID, and is carried out as any other.', 'Replay', true);
act($('drop'), '/api/letters/drop', 'Drop #?', 'They are given up for good. What they hold is gone then.', 'Drop', false);
$('look').addEventListener('click', () => doing($('look'), $('acted'), async () => { say($('acted'), 'Looking…'); say($('acted'), await look()); }));
$('all').addEventListener('change', () => { for (const box of $('letters').tBodies[0].querySelectorAll('input')) box.checked = $('all').checked; chose(); });

// ---- The form ----

let actions = [];
const fieldOf = (p) => el('label', {}, p.name, p.object ? el('textarea', { name: p.name, rows: 3, spellcheck: false, placeholder: '{"…": "…"}' }) : el('input', { name: p.name, autocomplete: 'off', placeholder: /date/i.test(p.name) ? 'YYYY-MM-DD' : '' }));

const chooseAction = () => {
  const action = actions.find((a) => a.name === $('action').value);
  $('params').replaceChildren(...action.params.map(fieldOf));
  $('effect').textContent = action.write ? 'This changes something.' : 'This only reads.';
  $('effect').dataset.write = action.write;
};

const parsed = (name, text) => {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name} is not JSON`);
  }
};

const readParams = () => {
  const action = actions.find((a) => a.name === $('action').value);
  const params = $('more').value.trim() ? parsed('Other params', $('more').value) : {};
  if (Object.getPrototypeOf(params) !== Object.prototype) throw new Error('Other params is not a JSON object');
  for (const p of action.params) {
    const text = $('params').querySelector(`[name="${p.name}"]`).value;
    if (text.trim()) params[p.name] = p.object ? parsed(p.name, text) : text;
  }
  return params;
};

let client; // of who asked last; another user's is closed, as a browser opens few streams
let sent; // the last request

// Sends a request, and says how it goes while it is the last one; the table has all.
const send = async (client, request, params) => {
  const { requestId: id, action } = sent = request;
  const tell = (text, bad) => { if (sent === request) say($('sent'), text, bad); };
  tell('Sending…');
  $('follow').hidden = true;
  const onStatus = ({ status, attempt }) => {
    tell(`${action}: ${status}${attempt > 1 ? ', attempt ' + attempt : ''}`);
    if (sent === request) $('follow').hidden = false;
  };
  try {
    await client.call(action, params, { id, onStatus });
    tell(action + ': success');
    if (sent === request) $('sent').dataset.good = true;
  } catch (error) {
    tell(error.requestId ? `${action}: error, ${error.code}` : error.message, true);
  }
};

$('action').addEventListener('change', chooseAction);
$('send').addEventListener('submit', (event) => {
  event.preventDefault();
  try {
    const params = readParams();
    const userId = $('user').value;
    if (client?.user !== userId) {
      client?.close();
      client = Object.assign(clientFor(userId), { user: userId });
    }
    const id = crypto.randomUUID();
    send(client, { action: $('action').value, userId, requestId: id, correlationId: id }, params);
  } catch (error) {
    say($('sent'), error.message, true);
  }
});
$('follow').addEventListener('click', () => showRequest(sent));

// ---- Beginning ----

const draw = charts();
let samples = [];
follow({
  snapshot: (all) => {
    requests.clear();
    keep(all.requests);
    samples = all.samples ?? [];
    draw(samples);
    drawStanding(all.status);
    drawSoon();
  },
  requests: (changed) => { keep(changed); drawSoon(); },
  sample: (s) => { samples = [...samples, s].slice(-180); draw(samples); },
  status: drawStanding,
}, (state, text) => { $('connection').dataset.state = state; $('connection').textContent = text; });
$('filter').addEventListener('input', drawSoon);
$('hold').addEventListener('change', drawSoon);
setInterval(() => { if ([...requests.values()].some((r) => !ended(r))) drawSoon(); }, 1000);

const begin = async () => {
  const about = await call('/api/about');
  $('where').textContent = `${about.prefix} at ${about.where}, as ${about.operator}`;
  document.title = `${about.prefix} – Tebra console`;
  actions = about.actions;
  $('action').replaceChildren(...actions.map((a) => el('option', { value: a.name }, a.name)));
  $('action').value = (actions.find((a) => !a.write) ?? actions[0]).name;
  $('user').value = about.user;
  chooseAction();
  $('look').disabled = !about.letters;
  if (!about.letters) say($('acted'), 'It is not known where they are: start the console with --project.');
};
begin().catch((error) => { $('where').textContent = error.message; });
