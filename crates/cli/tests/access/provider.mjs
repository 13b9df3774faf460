// An OpenID provider made by others, as `node provider.mjs MODULES SETUP`: it prints its issuer, then follows orders, one JSON object a line on
// its standard input, each answered by a line; it ends with its standard input. What it does badly, it does on order.
import { createPrivateKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, request as ask } from 'node:https';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [, , modules, file] = process.argv;
const load = (file) => import(pathToFileURL(`${modules}/${file}`));
const { default: Provider } = await load('oidc-provider/lib/index.js');
const { SignJWT, importJWK } = await load('jose/dist/webapi/index.js');
const setup = JSON.parse(readFileSync(file));

// What the package remarks is no answer to an order.
console.info = console.error;

let serve = (request, response) => response.writeHead(503).end();
let mood = 'good';
// Certificates are asked for and not judged: a token is bound to the key alone (RFC 8705, section 3).
const server = createServer({ ...setup.tls, requestCert: true, rejectUnauthorized: false }, (request, response) =>
  (moods[mood] ?? serve)(request, response));
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `https://localhost:${server.address().port}`;

// A private key that was written down and read again. One that comes from its generator is locked while it is exported, and when the
// generator happens to be collected meanwhile, node 20 waits for that lock for ever.
const newPrivateKey = (type, options) => {
  const publicKeyEncoding = { format: 'der', type: 'spki' };
  const privateKeyEncoding = { format: 'der', type: 'pkcs8' };
  const { privateKey: key } = generateKeyPairSync(type, { ...options, publicKeyEncoding, privateKeyEncoding });
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
};
const newKey = (kid) => {
  const jwk = newPrivateKey('ec', { namedCurve: 'P-256' }).export({ format: 'jwk' });
  return { ...jwk, kid, alg: 'ES256', use: 'sig' };
};
const published = ({ d, ...jwk }) => jwk;
const json = (response, value) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(typeof value === 'string' ? value : JSON.stringify(value));
};
const JWKS = '/jwks';

// What a provider does that is broken, or in the hands of somebody else.
const moods = {
  slow: () => {},
  down: (request) => request.socket.destroy(),
  failing: (request, response) => response.writeHead(500).end('out of order'),
  // Discovery in the name of another issuer.
  stranger: (request, response) => {
    if (!request.url.startsWith('/.well-known')) return serve(request, response);
    json(response, {
      issuer: 'https://id.elsewhere.example',
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      jwks_uri: `${issuer}${JWKS}`,
      response_types_supported: ['code'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'],
    });
  },
  // Another key under the name of the real one.
  swapped: (request, response) =>
    request.url === JWKS ? json(response, { keys: [published(usurper)] }) : serve(request, response),
  // 20 MiB that are a set of keys.
  huge: (request, response) => {
    if (request.url !== JWKS) return serve(request, response);
    const many = Array.from({ length: 1000 }, (_, at) => ({ ...published(keys[0]), kid: `k-${at}`, pad: 'x'.repeat(20 << 10) }));
    json(response, { keys: [...keys.map(published), ...many] });
  },
};

// Requests of the provider's own, to addresses that its clients named: those of the test are on loopback.
let trusted;
const fetch = (url, { method = 'GET', headers = {}, body } = {}) =>
  new Promise((done, failed) => {
    const sent = ask(url, { method, ca: trusted, headers: Object.fromEntries(new Headers(headers)), timeout: 60_000 }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => done(new Response(answer.statusCode === 204 ? null : Buffer.concat(parts), { status: answer.statusCode })));
    });
    sent.on('error', failed).on('timeout', () => sent.destroy(new Error('no answer')));
    sent.end(body?.toString());
  });

const page = (body) => `<!doctype html><title>Staff</title><h1>Staff of the clinic</h1>${body}`;
const LOGIN = '/interaction/';

// The page on which a user says who they are. There are no passwords here: what is tested is what comes after.
const login = async (request, response) => {
  const interaction = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.writeHead(200, { 'content-type': 'text/html' });
    return response.end(page(`<form method="post"><input name="login" autofocus><button type="submit">Sign in</button></form>
      <p id="for">${interaction.params.client_id}</p>`));
  }
  let body = '';
  for await (const part of request) body += part;
  const accountId = new URLSearchParams(body).get('login');
  await provider.interactionFinished(request, response, { login: { accountId, acr: 'phr', amr: ['hwk'] } });
};

const resources = {
  'https://clinic.example/': { scope: 'read write', audience: 'clinic', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } },
  'https://opaque.clinic.example/': { scope: 'read write', audience: 'clinic', accessTokenFormat: 'opaque' },
};

const configuration = () => ({
  jwks: { keys },
  clients,
  fetch,
  cookies: { keys: ['a key for the cookies of a test'] },
  scopes: ['openid', 'offline_access', 'read', 'write'],
  claims: { openid: ['sub', 'groups', 'acr', 'auth_time'], profile: ['name'] },
  acrValues: ['phr'],
  conformIdTokenClaims: false,
  findAccount: (context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: id, groups: setup.groups?.[id] ?? [] }),
  }),
  extraTokenClaims: (context, token) => ({ groups: setup.groups?.[token.accountId] ?? [] }),
  interactions: { url: (context, interaction) => `${LOGIN}${interaction.uid}` },
  // Clients of the clinic need no consent.
  loadExistingGrant: async (context) => {
    const grant = new context.oidc.provider.Grant({
      clientId: context.oidc.client.clientId,
      accountId: context.oidc.session.accountId,
    });
    grant.addOIDCScope('openid profile offline_access read write');
    for (const resource of Object.keys(resources)) grant.addResourceScope(resource, 'read write');
    await grant.save();
    return grant;
  },
  rotateRefreshToken: true,
  issueRefreshToken: (context, client) => client.grantTypeAllowed('refresh_token'),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => setup.nonces === true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      selfSignedTlsClientAuth: false,
      getCertificate: (context) => context.req.socket.getPeerX509Certificate(),
    },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (context, form) => {
        context.body = page(`${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
      postLogoutSuccessSource: (context) => {
        context.body = page('<p id="out">Signed out</p>');
      },
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: (context, client, oneOf) => oneOf?.[0] ?? 'https://clinic.example/',
      useGrantedResource: () => true,
      getResourceServerInfo: (context, resource) => resources[resource],
    },
  },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, ClientCredentials: 600, IdToken: 600, Session: 3600, Grant: 3600, RefreshToken: 3600 },
});

let { clients } = setup;
let keys = [newKey('k1')];
let made = 1;
// Of somebody who took the provider's name.
const usurper = newKey('k1');
let provider;
const renew = () => {
  provider = new Provider(issuer, configuration());
  provider.on('server_error', (context, error) => console.error(error));
  provider.on('grant.error', (context, error) => console.error(error.message, error.error_description, error.error_detail));
  const others = provider.callback();
  serve = (request, response) => {
    if (!request.url.startsWith(LOGIN)) return others(request, response);
    return login(request, response).catch((error) => {
      console.error(error);
      response.writeHead(500).end();
    });
  };
};
renew();

const orders = {
  // Signs with a new key; those before stay published, but for the oldest ones beyond `keep`.
  rotate: ({ keep = 1 }) => {
    keys = [newKey(`k${++made}`), ...keys].slice(0, keep + 1);
    renew();
    return keys.map((key) => key.kid);
  },
  // A token of this shape that the usurper's key signs, under any name.
  forge: async ({ kid, sub }) => {
    const key = await importJWK(usurper, 'ES256');
    const token = new SignJWT({ scope: 'read write', client_id: sub });
    token.setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid }).setIssuer(issuer).setAudience('clinic').setSubject(sub);
    return token.setIssuedAt().setExpirationTime('10m').setJti(randomBytes(8).toString('hex')).sign(key);
  },
  mood: ({ is }) => {
    mood = is;
    server.closeIdleConnections();
  },
  clients: ({ are, ca }) => {
    clients = are;
    trusted = ca;
    renew();
  },
};

console.log(issuer);
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  console.log(JSON.stringify({ done: (await orders[order.do](order)) ?? null }));
}
process.exit(0);
