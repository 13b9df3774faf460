// The clinic's OpenID provider: npm `oidc-provider` behind a few lines. People sign in with a page, programs with a secret.
//
// The people and their passwords are synthetic and stand here in the open, as does the secret of the nightly job: this is an example, on
// loopback. Keys are made at each start, and nothing outlives a restart.
import { createHash, createPrivateKey, generateKeyPairSync, randomBytes, timingSafeEqual } from 'node:crypto';

import Provider from 'oidc-provider';

const issuer = process.env.ISSUER;
const gateway = process.env.GATEWAY;
const port = 9005;
const audience = 'clinic';
const resource = 'https://clinic.example/';

const people = {
  nora: { name: 'Nora, a nurse', groups: ['nurses'] },
  bela: { name: 'Bela, a billing clerk', groups: ['billing'] },
  'p-1001': { name: 'Alma Birch', groups: ['patients'] },
  'p-1002': { name: 'Bruno Cedar', groups: ['patients'] },
};
const password = (user) => `${user}-secret`;
const programs = [{ client_id: 'nightly', client_secret: 'nightly-secret', scope: 'agenda' }];

// Written down and read again. One that comes from its generator is locked while it is exported, and when the generator happens to be
// collected meanwhile, node 20 waits for that lock for ever.
const generated = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { format: 'der', type: 'spki' },
  privateKeyEncoding: { format: 'der', type: 'pkcs8' },
});
const key = createPrivateKey({ key: generated.privateKey, format: 'der', type: 'pkcs8' }).export({ format: 'jwk' });
const digest = (text) => createHash('sha256').update(text).digest();
const same = (a, b) => timingSafeEqual(digest(a), digest(b));

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...key, kid: randomBytes(8).toString('hex'), alg: 'ES256', use: 'sig' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clients: [
    {
      client_id: 'gateway',
      token_endpoint_auth_method: 'none',
      redirect_uris: [`${gateway}/.ringfence/callback/staff`],
      post_logout_redirect_uris: [`${gateway}/.ringfence/logged-out`],
      id_token_signed_response_alg: 'ES256',
    },
    ...programs.map((program) => ({
      ...program,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
    })),
  ],
  scopes: ['openid', 'profile', 'agenda'],
  claims: { openid: ['sub', 'groups'], profile: ['name'], acr: null, auth_time: null, sid: null },
  conformIdTokenClaims: false,
  findAccount: (_, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  interactions: { url: (_, interaction) => `/sign-in/${interaction.uid}` },
  // Signing in is all there is to agree to: the gateway is the clinic's own.
  loadExistingGrant: async (context) => {
    const grant = new context.oidc.provider.Grant({
      clientId: context.oidc.client.clientId,
      accountId: context.oidc.session.accountId,
    });
    grant.addOIDCScope('openid profile');
    await grant.save();
    return grant;
  },
  enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      // Asked by the gateway in the name of its own user: no second question.
      logoutSource: (context, form) => {
        context.body = page('Signing out', `${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
    },
    resourceIndicators: {
      enabled: true,
      // Programs ask for the clinic's API and nothing else; the gateway asks who somebody is.
      defaultResource: (context) => (context.oidc.client.clientId === 'gateway' ? [] : resource),
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'agenda',
        audience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: 300,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  ttl: { AccessToken: 300, IdToken: 300, Session: 8 * 3600, Interaction: 600, Grant: 8 * 3600, ClientCredentials: 300 },
});
// TLS ends at the gateway.
provider.proxy = true;
for (const kind of ['authorization.error', 'grant.error', 'server_error', 'end_session.error', 'backchannel.error']) {
  provider.on(kind, (_, error) => console.error(kind, error?.message, error?.error_description ?? ''));
}

function page(title, content) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><style>body{font:1rem/1.5 system-ui;max-width:22rem;margin:4rem auto;padding:0 1rem}
input,button{font:inherit;display:block;width:100%;margin:.25rem 0 1rem;padding:.5rem;box-sizing:border-box}</style>
<h1>${title}</h1>${content}`;
}

const form = (uid, wrong) =>
  page(
    'Clinic sign-in',
    `${wrong ? '<p role="alert">User and password do not fit.</p>' : ''}<form method="post" action="/sign-in/${uid}">
<label>User<input name="user" autocomplete="username" required autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button></form>`,
  );

async function body(request) {
  let text = '';
  for await (const part of request) {
    text += part;
    if (text.length > 4096) throw new Error('a sign-in is shorter');
  }
  return new URLSearchParams(text);
}

provider.use(async (context, next) => {
  const [, uid] = /^\/sign-in\/([\w-]{1,64})$/.exec(context.path) ?? [];
  if (!uid) return next();
  context.set('cache-control', 'no-store');
  context.set('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
  await provider.interactionDetails(context.req, context.res);
  context.type = 'html';
  if (context.method !== 'POST') {
    context.body = form(uid, false);
    return undefined;
  }
  const said = await body(context.req);
  const user = said.get('user') ?? '';
  const known = Object.hasOwn(people, user);
  if (!same(said.get('password') ?? '', password(user)) || !known) {
    context.status = 401;
    context.body = form(uid, true);
    return undefined;
  }
  context.respond = false;
  context.res.statusCode = 200;
  return provider.interactionFinished(context.req, context.res, { login: { accountId: user } });
});

const server = provider.listen(port, () => console.log(`id listens on ${port}, as ${issuer}`));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
