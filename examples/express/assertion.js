// Verifies the assertions that Caddy signs (keycloak_cache_auth, `assertion`).

import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const header = 'x-user-assertion'

// What jose throws when the keys cannot be had. All else is the assertion's fault.
const unavailable = new Set(['ERR_JOSE_GENERIC', 'ERR_JWKS_INVALID', 'ERR_JWKS_TIMEOUT'])

/**
 * Middleware that sets req.user to { sub, tenant, memberId, roles }, or to null if the
 * request has no assertion. One that is not good is answered with 401, and with 503 if
 * Caddy's keys cannot be had.
 *
 * issuer and audience are those of the Caddyfile, jwksUrl is where Caddy serves its keys.
 */
export function userFromCaddy({ issuer, audience, jwksUrl }) {
  if (!issuer || !audience) throw new TypeError('issuer and audience are required')
  const keys = createRemoteJWKSet(new URL(jwksUrl), {
    timeoutDuration: 2_000,
    cacheMaxAge: 300_000, // after that the keys are fetched again
    cooldownDuration: 5_000, // between two fetches, whatever comes in
  })
  const rules = {
    issuer,
    audience,
    algorithms: ['EdDSA', 'ES256'],
    typ: 'kca-assertion+jwt',
    requiredClaims: ['sub', 'tenant', 'member_id', 'roles', 'iat', 'exp'],
    clockTolerance: 10, // seconds
    maxTokenAge: 610, // no assertion is made for longer than ten minutes
  }
  return async (req, res, next) => {
    req.user = null
    const assertion = req.headers[header]
    if (assertion === undefined) return next()
    try {
      const { payload } = await jwtVerify(assertion, keys, rules)
      req.user = { sub: payload.sub, tenant: payload.tenant, memberId: payload.member_id, roles: payload.roles }
    } catch (error) {
      const ours = !(error instanceof errors.JOSEError) || unavailable.has(error.code)
      return res.status(ours ? 503 : 401).end()
    }
    next()
  }
}
