'use strict';
const $ = id => document.getElementById(id);
const phases = {
  check: 'Checking the signature', plan: 'Comparing the slots', write: 'Writing', flush: 'Flushing the medium',
  readback: 'Reading back', repair: 'Rewriting what reads back wrong', switch: 'Switching the boot slot',
};
let stream, ended, busy = false;

function say(text, kind, hint) {
  $('outcome').textContent = text + (hint ? '. ' + hint[0].toUpperCase() + hint.slice(1) + '.' : '');
  $('outcome').className = kind || '';
}

// ask sends a request and returns the answer; null when the session is gone.
async function ask(path, body) {
  const r = await fetch(path, body === undefined ? {} : {method: 'POST', body: body instanceof Blob ? body : JSON.stringify(body)});
  const data = await r.json();
  if (r.status === 401) { login(); return null; }
  if (!r.ok) throw data;
  return data;
}

function login() {
  if (stream) stream.close();
  stream = null;
  $('main').hidden = true;
  $('login').hidden = false;
  $('code').focus();
}

function element(name, text, kind) {
  const e = document.createElement(name);
  e.textContent = text;
  e.className = kind || '';
  return e;
}

async function showStatus() {
  let s;
  try { s = await ask('status'); } catch (e) {
    if (e.message) $('slots').replaceChildren(element('p', e.message, 'bad'));
    s = e.message ? {slots: []} : null;
  }
  if (!s) return;
  $('login').hidden = true;
  $('main').hidden = false;
  if (!stream) listen();
  if (!s.disk) return;
  $('device').textContent = [s.product, 'disk ' + s.disk, 'boot loader ' + s.backend].filter(Boolean).join(', ');
  $('slots').replaceChildren(...s.slots.map(slot => {
    const row = element('div', '', 'slot');
    const words = ['Slot ' + slot.name, slot.version, slot.state, slot.primary ? 'boots next' : ''].filter(Boolean).join(', ');
    const once = element('button', 'Boot once');
    once.disabled = busy;
    once.onclick = () => confirm('Boot slot ' + slot.name + ' once?') && choose('boot', {slot: slot.name});
    row.append(element('span', words, slot.state === 'bad' ? 'bad' : 'good'), once);
    return row;
  }));
  $('findings').replaceChildren(...(s.findings || []).map(f => element('li', f.evidence + (f.remedy ? ': ' + f.remedy : ''), 'warn')));
}

function size(n) { return n >= 1 << 30 ? (n / (1 << 30)).toFixed(2) + ' GiB' : (n / (1 << 20)).toFixed(1) + ' MiB'; }

function show(e) {
  if (e.ev === 'result') {
    ended = true;
    $('job').hidden = true;
    if (e.code === 0) say('Installed' + (e.result && e.result.version ? ' version ' + e.result.version : '') + '. The device restarts.', 'good');
    else if (e.code === 3) say(e.msg, 'good');
    else say(e.msg, 'bad', e.hint);
    showStatus();
    return;
  }
  if (e.ev === 'warn') say('Warning: ' + e.msg, 'warn');
  if (e.ev !== 'phase' && e.ev !== 'progress') return;
  if ($('job').hidden) say('Installing');
  ended = false;
  $('job').hidden = false;
  $('phase').textContent = phases[e.phase] + (e.image ? ' ' + e.image : '');
  const total = e.all_total || e.total, done = (e.all_total ? e.all_bytes : e.bytes) || 0;
  if (total) $('bar').value = done / total; else $('bar').removeAttribute('value');
  $('amount').textContent = total ? size(done) + ' of ' + size(total) + (e.rate ? ', ' + size(e.rate) + '/s, ' + (e.eta || 0) + ' s left' : '') : '';
}

function listen() {
  stream = new EventSource('events');
  stream.onmessage = m => show(JSON.parse(m.data));
  stream.onerror = () => $('outcome').textContent || say('No connection to the device', 'warn');
}

function enable(on) {
  busy = !on;
  document.querySelectorAll('button').forEach(b => b.disabled = busy);
}

// choose has the device do something. The event stream has the outcome of an install, also when the connection of the request broke.
async function choose(path, body) {
  enable(false);
  ended = false;
  say(path === 'upload' ? 'Uploading' : 'Working');
  try {
    const done = await ask(path, body);
    if (done && !ended) say(done.message[0].toUpperCase() + done.message.slice(1) + '.', 'good');
  } catch (e) {
    for (let i = 0; i < 20 && !ended && !e.message; i++) await new Promise(r => setTimeout(r, 100));
    if (!ended) say(e instanceof TypeError ? 'The connection broke' : e.message, 'bad', e.hint);
  }
  enable(true);
  showStatus();
}

// rank puts documents before images: release.toml, its signature, the signature of a block map, block maps, images.
function rank(name) {
  if (/^release\.toml$/.test(name)) return 0;
  if (/^release\.toml\.(asc|sig)$/.test(name)) return 1;
  if (/\.bmap\.(asc|sig)$/.test(name)) return 2;
  return /\.bmap$/.test(name) ? 3 : 4;
}

// header is that of a file in a tar archive (POSIX ustar).
function header(name, size) {
  const h = new Uint8Array(512), put = (at, text) => h.set(new TextEncoder().encode(text), at);
  if (new TextEncoder().encode(name).length > 100) throw {message: 'the name ' + name + ' is longer than 100 bytes'};
  put(0, name);
  put(100, '0000644\0' + '0000000\0' + '0000000\0');
  if (size < 8 ** 11) put(124, size.toString(8).padStart(11, '0') + '\0');
  else for (let i = 135, n = size; h[124] = 0x80, i > 124 && n > 0; i--, n = Math.floor(n / 256)) h[i] = n % 256;
  put(136, '00000000000\0' + '        0');
  put(257, 'ustar\0' + '00');
  put(148, h.reduce((a, b) => a + b, 0).toString(8).padStart(6, '0') + '\0 ');
  return h;
}

// archive makes one tar archive of files, which the browser reads as it sends them.
function archive(files) {
  if (files.length === 1 && /\.tar$/.test(files[0].name)) return files[0];
  const bundle = files.some(f => f.name === 'release.toml');
  const parts = [...files].filter(f => !bundle || rank(f.name) !== 2).sort((a, b) => rank(a.name) - rank(b.name))
    .flatMap(f => [header(f.name, f.size), f, new Uint8Array((512 - f.size % 512) % 512)]);
  return new Blob([...parts, new Uint8Array(1024)], {type: 'application/x-tar'});
}

function submit(form, act) { $(form).onsubmit = e => { e.preventDefault(); act(); }; }

submit('login', async () => {
  try { if (await ask('code', {code: $('code').value})) { say(''); await showStatus(); } } catch (e) { say(e.message || 'No connection', 'bad', e.hint); }
});
submit('upload', () => {
  try { choose('upload', archive([...$('files').files])); } catch (e) { say(e.message, 'bad'); }
});
submit('address', () => choose('address', {address: $('url').value}));
$('restart').onclick = () => confirm('Restart the device?') && choose('restart', {});
showStatus();
