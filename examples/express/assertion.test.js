import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, beforeEach, describe, test } from 'node:test'
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose'
import { newApp } from './app.js'

const issuer = 'https://shop.example.com'
const audience = 'shop'
const typ = 'kca-assertion+jwt'
const pairs = {
  ed: await generateKeyPair('EdDSA'),
  ec: await generateKeyPair('ES256'),
  rsa: await generateKeyPair('RS256'),
  other: await generateKeyPair('EdDSA'),
}
const algorithms = { ed: 'EdDSA', ec: 'ES256', rsa: 'RS256' }
const closed = []

function listen(handler) {
  return new Promise((resolve) => {
    const server = createServer(handler).listen(0, '127.0.0.1', () => {
      closed.push(server)
      resolve(`http://127.0.0.1:${server.address().port}`)
    })
  })
}

const keys = { fetched: 0, status: 200, names: ['ed', 'ec', 'rsa'] }
const jwksUrl = await listen(async (_, res) => {
  keys.fetched++
  const set = keys.names.map(async (kid) => ({
    ...(await exportJWK(pairs[kid].publicKey)), kid, alg: algorithms[kid], use: 'sig',
  }))
  res.statusCode = keys.status
  res.end(JSON.stringify({ keys: await Promise.all(set) }))
})
let upstream

beforeEach(async () => {
  Object.assign(keys, { fetched: 0, status: 200, names: ['ed', 'ec', 'rsa'] })
  upstream = await listen(newApp({ issuer, audience, jwksUrl }))
})
after(() => closed.forEach((server) => { server.close(); server.closeAllConnections() }))

const seconds = () => Math.floor(Date.now() / 1000)

function claims(changes = {}) {
  return {
    iss: issuer, aud: audience, sub: '8d0c', tenant: 'acme', member_id: '4711', roles: ['editor'],
    iat: seconds(), exp: seconds() + 60, ...changes,
  }
}

function sign(changes, { key = 'ed', kid = key, alg = algorithms[key], ...header } = {}) {
  return new SignJWT(claims(changes)).setProtectedHeader({ alg, kid, typ, ...header }).sign(pairs[key].privateKey)
}

async function ask(assertion, headers = {}) {
  if (assertion !== undefined) headers['x-user-assertion'] = assertion
  const res = await fetch(upstream + '/whoami', { headers })
  return res.status === 200 ? res.json() : res.status
}

describe('the user is the asserted one', () => {
  const user = { sub: '8d0c', tenant: 'acme', memberId: '4711', roles: ['editor'] }
  test('EdDSA', async () => assert.deepEqual(await ask(await sign()), user))
  test('ES256', async () => assert.deepEqual(await ask(await sign({}, { key: 'ec' })), user))
  test('several audiences', async () => assert.deepEqual(await ask(await sign({ aud: ['mail', 'shop'] })), user))
  test('clocks that differ a little', async () => {
    assert.deepEqual(await ask(await sign({ exp: seconds() - 5 })), user)
    assert.deepEqual(await ask(await sign({ iat: seconds() + 5 })), user)
  })
})

test('without an assertion there is no user, whatever else is there', async () => {
  assert.equal(await ask(undefined, { 'x-user-id': '8d0c', 'x-member-id': '4711' }), null)
})

describe('refused with 401', async () => {
  const good = await sign()
  const [head, , signature] = good.split('.')
  const bad = {
    'another issuer': sign({ iss: 'https://evil.example.com' }),
    'another audience': sign({ aud: 'mail' }),
    'over': sign({ iat: seconds() - 100, exp: seconds() - 11 }),
    'from the future': sign({ iat: seconds() + 30 }),
    'good for too long': sign({ iat: seconds() - 700, exp: seconds() + 600 }),
    'an access token': sign({}, { typ: 'JWT' }),
    'no type': sign({}, { typ: undefined }),
    'an unknown key': sign({}, { kid: 'unknown' }),
    'another key': sign({}, { key: 'other', kid: 'ed', alg: 'EdDSA' }),
    'the key of another algorithm': sign({}, { key: 'ec', kid: 'ed' }),
    'RSA, though its key is published': sign({}, { key: 'rsa' }),
    'no signature': new UnsecuredJWT(claims()).encode(),
    'a signature that is cut': good.slice(0, -4),
    'other claims': sign({ sub: 'evil' }).then((text) => [head, text.split('.')[1], signature].join('.')),
    'two': `${good}, ${good}`,
    'rubbish': 'rubbish',
    'empty': '',
  }
  for (const name of Object.keys(claims())) bad['no ' + name] = sign({ [name]: undefined })
  for (const [name, assertion] of Object.entries(bad)) {
    test(name, async () => assert.equal(await ask(await assertion), 401))
  }
})

describe('the keys', () => {
  test('are fetched once', async () => {
    for (let i = 0; i < 5; i++) await ask(await sign())
    assert.equal(keys.fetched, 1)
  })
  test('are not fetched for each unknown one', async () => {
    for (let i = 0; i < 10; i++) assert.equal(await ask(await sign({}, { kid: String(i) })), 401)
    assert.ok(keys.fetched <= 1, `${keys.fetched} fetches`)
  })
  test('are found when they are new, and dropped when they are withdrawn', async (t) => {
    keys.names = ['ec']
    assert.equal((await ask(await sign({}, { key: 'ec' }))).sub, '8d0c')
    keys.names = ['ed']
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 6_000 })
    assert.equal((await ask(await sign())).sub, '8d0c')
    assert.equal(await ask(await sign({}, { key: 'ec' })), 401)
  })
  test('that cannot be had are no fault of the client', async () => {
    keys.status = 500
    assert.equal(await ask(await sign()), 503)
    keys.status = 200
    assert.equal((await ask(await sign())).sub, '8d0c')
  })
})

test('settings that would check nothing are refused', () => {
  assert.throws(() => newApp({ issuer, jwksUrl }), TypeError)
  assert.throws(() => newApp({ audience, jwksUrl }), TypeError)
})
