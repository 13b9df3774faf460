// An OpenID provider made by others, for tests: `node provider.mjs MODULES`, then one JSON line after the other on standard input.
// The first says how it is to be; later ones change its keys. Each is answered with one line, its issuer.
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { createServer as plain } from 'node:http';
import { createServer as tls } from 'node:https';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const { default: Provider } = await import(pathToFileURL(`${process.argv[2]}/oidc-provider/lib/index.js`));

const kinds = {
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519', {}],
  RS256: ['rsa', { modulusLength: 2048 }],
};
const known = new Map();
let server;
let setup;
let issuer;
let handle = (request, response) => response.writeHead(503).end();

// What is stored outlives a change of keys.
const store = new Map();
class Adapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    store.set(`${this.model}:${id}`, payload);
  }

  async find(id) {
    return store.get(`${this.model}:${id}`);
  }

  async findByUid(uid) {
    return [...store.values()].find((payload) => payload.kind === 'Session' && payload.uid === uid);
  }

  async consume(id) {
    (await this.find(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    store.delete(`${this.model}:${id}`);
  }

  async revokeByGrantId(grantId) {
    for (const [id, payload] of store) {
      if (payload.grantId === grantId && id.startsWith(`${this.model}:`)) store.delete(id);
    }
  }
}

// A private key that was written down and read again. One that comes from its generator is locked while it is exported, and when the
// generator happens to be collected meanwhile, node 20 waits for that lock for ever.
const newPrivateKey = (type, options) => {
  const publicKeyEncoding = { format: 'der', type: 'spki' };
  const privateKeyEncoding = { format: 'der', type: 'pkcs8' };
  const { privateKey: key } = generateKeyPairSync(type, { ...options, publicKeyEncoding, privateKeyEncoding });
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
};

function key({ kid, alg }) {
  if (!known.has(kid)) {
    const jwk = newPrivateKey(...kinds[alg]).export({ format: 'jwk' });
    known.set(kid, { ...jwk, kid, alg, use: 'sig' });
  }
  return known.get(kid);
}

function provide(keys) {
  const provider = new Provider(issuer, {
    adapter: Adapter,
    // By itself it calls no loopback address, which is right; here the relying party has none but that.
    fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
    jwks: { keys: keys.map(key) },
    clients: setup.clients,
    cookies: { keys: ['a key for the cookies of a test'] },
    scopes: ['openid', 'offline_access', 'profile', 'read'],
    claims: { openid: ['sub'], profile: ['name', 'groups'], acr: null, auth_time: null, sid: null },
    conformIdTokenClaims: false,
    findAccount: (context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `the user ${id}`, groups: ['nurse', 'ward-3'] }),
    }),
    issueRefreshToken: async (context, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
    enabledJWA: {
      idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'],
      introspectionSigningAlgValues: ['RS256', 'ES256', 'EdDSA'],
    },
    features: {
      devInteractions: { enabled: true },
      introspection: { enabled: true },
      jwtIntrospection: { enabled: setup.signedIntrospection ?? false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'https://clinic.example/',
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope: 'read', audience: 'clinic', accessTokenFormat: 'opaque' }),
      },
    },
    ttl: { AccessToken: 600, IdToken: 600, Session: 600, Interaction: 600, Grant: 600, RefreshToken: 600 },
  });
  const failures = [
    'authorization.error', 'backchannel.error', 'end_session.error', 'grant.error', 'introspection.error', 'server_error',
  ];
  for (const kind of failures) {
    provider.on(kind, (context, error) => console.error(kind, error?.message, error?.error_description ?? '', error?.error_detail ?? ''));
  }
  handle = provider.callback();
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (!server) {
    setup = message;
    const listener = (request, response) => handle(request, response);
    server = setup.tls ? tls(setup.tls, listener) : plain(listener);
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    issuer = `${setup.tls ? 'https' : 'http'}://localhost:${server.address().port}`;
  }
  provide(message.keys);
  console.log(issuer);
}
process.exit(0);
