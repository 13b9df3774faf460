// An OpenID provider made by others that gives machines access tokens: `node provider.mjs MODULES SETUP`; it prints its issuer, and ends with
// its standard input.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { pathToFileURL } from 'node:url';

const [, , modules, file] = process.argv;
const { default: Provider } = await import(pathToFileURL(`${modules}/oidc-provider/lib/index.js`));
const setup = JSON.parse(readFileSync(file));

let handle = (request, response) => response.writeHead(503).end();
const server = createServer(setup.tls, (request, response) => handle(request, response));
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `https://localhost:${server.address().port}`;
const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const provider = new Provider(issuer, {
  jwks: { keys: [{ ...jwk, kid: 'k1', alg: 'ES256', use: 'sig' }] },
  clients: setup.clients,
  cookies: { keys: ['a key for the cookies of a test'] },
  scopes: ['read', 'write'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'https://clinic.example/',
      getResourceServerInfo: () => ({
        scope: 'read write',
        audience: 'clinic',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  ttl: { ClientCredentials: 600 },
});
provider.on('server_error', (context, error) => console.error(error));
handle = provider.callback();
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
