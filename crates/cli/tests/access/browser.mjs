// Chromium without a window, as `node browser.mjs HOME`: it follows steps, one JSON object a line on its standard input, and answers each by a
// line; it ends with its standard input. It is driven over its own debugging protocol, by a pipe that nobody else can reach.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const [, , home] = process.argv;
const chromium = spawn(
  'chromium',
  [
    '--headless=new', '--log-level=3', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-extensions', '--remote-debugging-pipe', `--user-data-dir=${home}/profile`,
    'about:blank',
  ],
  { stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'], env: { PATH: process.env.PATH, HOME: home } },
);
chromium.on('exit', (code) => {
  console.error(`chromium ended: ${code}`);
  process.exit(1);
});

let number = 0;
const waiting = new Map();
const listeners = [];
let rest = '';
chromium.stdio[4].setEncoding('utf8').on('data', (part) => {
  const messages = (rest + part).split('\0');
  rest = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    if (message.id) {
      const { done, failed } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) failed(new Error(JSON.stringify(message.error)));
      else done(message.result);
    } else {
      for (const listener of [...listeners]) listener(message);
    }
  }
});
const send = (method, params = {}, sessionId = undefined) =>
  new Promise((done, failed) => {
    waiting.set(++number, { done, failed });
    chromium.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
  });
/// The next event of a kind, of those from now on.
const next = (method, within = 90_000) =>
  new Promise((done, failed) => {
    const late = setTimeout(() => failed(new Error(`no ${method}`)), within);
    const listener = (message) => {
      if (message.method !== method) return;
      clearTimeout(late);
      listeners.splice(listeners.indexOf(listener), 1);
      done(message.params);
    };
    listeners.push(listener);
  });

const { targetInfos } = await send('Target.getTargets');
const { targetId } = targetInfos.find(({ type }) => type === 'page') ?? (await send('Target.createTarget', { url: 'about:blank' }));
const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
const page = (method, params) => send(method, params, sessionId);
await Promise.all(['Page.enable', 'Network.enable', 'Runtime.enable'].map((method) => page(method)));
/// Every address that was asked for since the last look, with what the browser says where it came from.
let asked = [];
listeners.push(({ method, params }) => {
  if (method === 'Network.requestWillBeSent') {
    asked.push({ url: params.request.url, referer: params.request.headers.Referer ?? null, status: params.redirectResponse?.status ?? null });
  }
});

const run = async (expression) => {
  const { result, exceptionDetails } = await page('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
};
/// A navigation is over when the page at its end was loaded; `cause` begins it.
const settle = async (cause) => {
  const loaded = next('Page.loadEventFired');
  await cause();
  await loaded;
};

const steps = {
  open: (url) => settle(() => page('Page.navigate', { url })),
  type: ([where, text]) => run(`document.querySelector(${JSON.stringify(where)}).value = ${JSON.stringify(text)}`),
  click: (where) => settle(() => run(`setTimeout(() => document.querySelector(${JSON.stringify(where)}).click())`)),
  /// What a script of the page gets.
  fetch: ([url, options]) =>
    run(`fetch(${JSON.stringify(url)}, ${JSON.stringify(options ?? {})}).then(async (r) => ({ status: r.status, text: await r.text() }),
      (e) => ({ status: 0, text: String(e) }))`),
  run,
  look: async () => {
    const [seen, { cookies }, { entries }] = await Promise.all([
      run(`(async () => ({
        url: location.href, title: document.title, text: document.body?.innerText ?? '', html: document.documentElement.outerHTML,
        scripts: document.cookie, local: { ...localStorage }, session: { ...sessionStorage },
        databases: (await indexedDB.databases()).length, caches: (await caches.keys()).length,
      }))()`),
      page('Storage.getCookies'),
      page('Page.getNavigationHistory'),
    ]);
    const requests = asked;
    asked = [];
    return { ...seen, cookies, history: entries.map(({ url }) => url), requests };
  },
};

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [[name, argument]] = Object.entries(JSON.parse(line));
  const done = await steps[name](argument).then((value) => ({ done: value ?? null }), (error) => ({ failed: `${error}` }));
  console.log(JSON.stringify(done));
}
chromium.removeAllListeners('exit');
chromium.kill();
await new Promise((done) => chromium.on('exit', done));
process.exit(0);
