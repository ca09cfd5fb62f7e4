// npm oidc-provider as a plain process: a certified OP for tests, in memory, on a loopback port.
//
//   node provider.mjs '{"life_s": 5, "clients": [...], "port": 0, "issuer": ""}'
//
// The first line on stdout is {"port": …, "issuer": …}; then it serves until it is ended. It rotates
// the refresh token at every use, and a second use of one revokes everything that was granted with it.
// A refresh token is given for scope offline_access with prompt=consent only (OIDC Core §11).
// People sign in at its development forms with any name: the name is the subject.
//
// GET /ledger tells what the OP itself counted: one entry per call of an endpoint below.

import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';

import { Provider } from 'oidc-provider';

const asked = JSON.parse(process.argv[2]);
const LEDGER = new Set(['token', 'revocation', 'userinfo', 'end_session_success', 'end_session_confirm']);

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig', alg: 'RS256' };
}

function account(sub) {
  return {
    accountId: sub,
    claims: () => ({
      sub,
      name: `${sub} of Node`,
      preferred_username: sub,
      email: `${sub}@example.com`,
      email_verified: true,
      groups: ['staff', 'node'],
    }),
  };
}

function configuration() {
  return {
    clients: asked.clients,
    jwks: { keys: [signingKey()] },
    cookies: { keys: ['for tests only'] },
    findAccount: (ctx, sub) => account(sub),
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    conformIdTokenClaims: asked.claims_in_id_token !== true,
    rotateRefreshToken: true,
    enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'] },
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      backchannelLogout: { enabled: true },
      pushedAuthorizationRequests: { enabled: true },
      userinfo: { enabled: true },
    },
    ttl: {
      AccessToken: asked.life_s,
      AuthorizationCode: 60,
      IdToken: asked.life_s,
      RefreshToken: 3600,
      Grant: 3600,
      Interaction: 600,
      Session: 3600,
    },
    // It keeps off loopback addresses of its clients (jwks_uri, back-channel logout); here they all are.
    fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
  };
}

const server = createServer();
server.listen(asked.port ?? 0, '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = asked.issuer || `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, configuration());
  const ledger = [];
  const note = (entry) => ledger.push({ at: Date.now() / 1000, ...entry });
  provider.use(async (ctx, next) => {
    if (ctx.path === '/ledger') {
      ctx.body = ledger;
      return;
    }
    await next();
    const route = ctx.oidc?.route;
    if (LEDGER.has(route)) {
      note({
        endpoint: route,
        grant: ctx.oidc.params?.grant_type ?? '',
        client: ctx.oidc.client?.clientId ?? '',
        client_auth: ctx.oidc.client?.clientAuthMethod ?? '',
        status: ctx.status,
        error: ctx.body?.error ?? '',
        why: ctx.body?.error_description ?? '',
      });
    }
  });
  provider.on('grant.revoked', () => note({ endpoint: 'grant revoked' }));
  provider.on('server_error', (ctx, error) => console.error(error));
  server.on('request', provider.callback());
  console.log(JSON.stringify({ port, issuer }));
});
process.on('SIGTERM', () => process.exit(0));
