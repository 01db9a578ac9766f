// An upstream that says who the user is.

import express from 'express'
import { userFromCaddy } from './assertion.js'

export function newApp(settings) {
  const app = express()
  app.use(userFromCaddy(settings))
  app.get('/whoami', (req, res) => res.json(req.user))
  return app
}

if (process.argv[1] === import.meta.filename) {
  const { ASSERTION_ISSUER, ASSERTION_AUDIENCE, ASSERTION_JWKS_URL, PORT = '3000' } = process.env
  const app = newApp({ issuer: ASSERTION_ISSUER, audience: ASSERTION_AUDIENCE, jwksUrl: ASSERTION_JWKS_URL })
  const server = app.listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
}
