// Clients made by others: `node clients.mjs MODULES`, with a job as JSON on standard input; what came of it is printed as JSON.
// Job: { library, issuer, client: { id, secret }, flow, scope, resource?, user?, dpop?, refresh?, tls, calls: [{ method?, url, again? }] }.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { pathToFileURL } from 'node:url';

const [, , modules] = process.argv;
const job = JSON.parse(readFileSync(0));
const load = (name, file) => import(pathToFileURL(`${modules}/${name}/${file}`));
const REDIRECT = 'https://app.clinic.example/callback';

/// What was sent last, and where.
let last;
/// HTTPS by hand, as the libraries want it: a private authority, and a certificate where the job has one.
const web = (url, { method = 'GET', headers, body } = {}) =>
  new Promise((done, failed) => {
    const fields = Object.fromEntries(new Headers(headers ?? {}));
    const text = body === undefined || body === null ? undefined : `${body}`;
    if (text !== undefined) {
      fields['content-length'] = `${Buffer.byteLength(text)}`;
      fields['content-type'] ??= 'application/x-www-form-urlencoded';
    }
    last = [`${url}`, { method, headers: fields, body: text }];
    const sent = request(url, { method, headers: fields, timeout: 90_000, agent: false, ...job.tls }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => {
        const names = new Headers();
        for (let at = 0; at < answer.rawHeaders.length; at += 2) names.append(answer.rawHeaders[at], answer.rawHeaders[at + 1]);
        const whole = [204, 303, 304].includes(answer.statusCode) && parts.length === 0 ? null : Buffer.concat(parts);
        done(new Response(whole, { status: answer.statusCode, headers: names }));
      });
    });
    sent.on('error', failed).on('timeout', () => sent.destroy(new Error(`no answer from ${url}`)));
    sent.end(text);
  });

/// Signs `user` in as a browser without scripts would, and stops where the provider sends it back to.
const browse = async (start, user) => {
  const jar = new Map();
  let [url, options] = [new URL(start), {}];
  for (let step = 0; step < 20; step++) {
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await web(url, { ...options, headers: { cookie, accept: 'text/html' } });
    for (const set of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
      if (value) jar.set(name, value);
      else jar.delete(name);
    }
    const to = answer.headers.get('location');
    if (to) {
      [url, options] = [new URL(to, url), {}];
      if (url.href.startsWith(REDIRECT)) return url;
    } else {
      const text = await answer.text();
      if (!text.includes('name="login"')) throw new Error(`${answer.status} at ${url}: ${text.slice(0, 300)}`);
      options = { method: 'POST', body: new URLSearchParams({ login: user }) };
    }
  }
  throw new Error('the sign-in goes round in circles');
};

const metadata = { id_token_signed_response_alg: 'ES256' };
const asked = { scope: job.scope, ...(job.resource && { resource: job.resource }) };

// A pair of keys that was written down and read again, in place of the libraries' own. One that comes from its generator is locked while it
// is exported, and when the generator happens to be collected meanwhile, node 20 waits for that lock for ever.
const newPair = async () => {
  const made = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { format: 'der', type: 'spki' },
    privateKeyEncoding: { format: 'der', type: 'pkcs8' },
  });
  const kind = { name: 'ECDSA', namedCurve: 'P-256' };
  const privateKey = await crypto.subtle.importKey('pkcs8', made.privateKey, kind, false, ['sign']);
  return { privateKey, publicKey: await crypto.subtle.importKey('spki', made.publicKey, kind, true, ['verify']) };
};

const libraries = {
  'openid-client': async () => {
    const lib = await load('openid-client', 'build/index.js');
    const auth = lib.ClientSecretBasic(job.client.secret);
    const config = await lib.discovery(new URL(job.issuer), job.client.id, metadata, auth, { [lib.customFetch]: web });
    config[lib.customFetch] = web;
    const DPoP = job.dpop ? lib.getDPoPHandle(config, await newPair()) : undefined;
    return {
      machine: () => lib.clientCredentialsGrant(config, asked, { DPoP }),
      human: async () => {
        const [verifier, state] = [lib.randomPKCECodeVerifier(), lib.randomState()];
        const challenge = await lib.calculatePKCECodeChallenge(verifier);
        const parameters = { ...asked, redirect_uri: REDIRECT, state, code_challenge: challenge, code_challenge_method: 'S256' };
        const back = await browse(lib.buildAuthorizationUrl(config, parameters), job.user);
        return lib.authorizationCodeGrant(config, back, { pkceCodeVerifier: verifier, expectedState: state }, {}, { DPoP });
      },
      refresh: (token) => lib.refreshTokenGrant(config, token, {}, { DPoP }),
      call: (token, method, url) => lib.fetchProtectedResource(config, token, new URL(url), method, null, new Headers(), { DPoP }),
      status: (error) => error.status ?? error.cause?.status ?? error.response?.status,
    };
  },
  oauth4webapi: async () => {
    const lib = await load('oauth4webapi', 'build/index.js');
    const options = { [lib.customFetch]: web };
    const issuer = new URL(job.issuer);
    const server = await lib.processDiscoveryResponse(issuer, await lib.discoveryRequest(issuer, options));
    const client = { client_id: job.client.id, ...metadata };
    const auth = lib.ClientSecretBasic(job.client.secret);
    if (job.dpop) options.DPoP = lib.DPoP(client, await newPair());
    // Whoever is told a nonce asks again with it (RFC 9449, section 8).
    const twice = async (once) => {
      try {
        return await once();
      } catch (error) {
        if (!lib.isDPoPNonceError(error)) throw error;
        return once();
      }
    };
    return {
      machine: () =>
        twice(async () => {
          const answer = await lib.clientCredentialsGrantRequest(server, client, auth, asked, options);
          return lib.processClientCredentialsResponse(server, client, answer);
        }),
      human: async () => {
        const [verifier, state] = [lib.generateRandomCodeVerifier(), lib.generateRandomState()];
        const url = new URL(server.authorization_endpoint);
        const parameters = {
          ...asked,
          client_id: job.client.id,
          response_type: 'code',
          redirect_uri: REDIRECT,
          state,
          code_challenge: await lib.calculatePKCECodeChallenge(verifier),
          code_challenge_method: 'S256',
        };
        for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
        const code = lib.validateAuthResponse(server, client, await browse(url, job.user), state);
        return twice(async () => {
          const answer = await lib.authorizationCodeGrantRequest(server, client, auth, code, REDIRECT, verifier, options);
          return lib.processAuthorizationCodeResponse(server, client, answer, { requireIdToken: true });
        });
      },
      refresh: (token) =>
        twice(async () => {
          const answer = await lib.refreshTokenGrantRequest(server, client, auth, token, options);
          return lib.processRefreshTokenResponse(server, client, answer);
        }),
      call: (token, method, url) => twice(() => lib.protectedResourceRequest(token, method, new URL(url), new Headers(), null, options)),
      status: (error) => error.status ?? error.response?.status,
    };
  },
};

const { machine, human, refresh, call, status } = await libraries[job.library]();
let tokens = await (job.flow === 'code' ? human() : machine());
const refreshed = [];
for (let round = 0; round < (job.refresh ?? 0); round++) {
  refreshed.push(tokens.access_token);
  tokens = await refresh(tokens.refresh_token);
}
const calls = [];
for (const { method = 'GET', url, again } of job.calls ?? []) {
  const said = await call(tokens.access_token, method, url).then(
    async (answer) => ({ status: answer.status, body: await answer.text() }),
    (error) => ({ status: status(error) ?? 0, error: `${error}`, challenge: error.response?.headers?.get('www-authenticate') ?? null }),
  );
  // The same bytes once more, as somebody who saw them would send them.
  if (again) said.again = (await web(...last)).status;
  calls.push(said);
}
console.log(JSON.stringify({ token: tokens.access_token, kind: tokens.token_type, before: refreshed, calls }));
