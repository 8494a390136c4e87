// Fetch-to-ack rates of Tidings and of BullMQ on Redis, interleaved, the median of three rounds.
//
// Each round of each: MESSAGES of about 500 bytes are queued, then 4 worker processes start, and the time runs from the
// first message that any of them takes until the last one is acknowledged. The work itself is nothing.
import { fork, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect as knock, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Queue } from 'bullmq'
import { Redis } from 'ioredis'

const [tidings, count] = [process.argv[2], Number(process.argv[3])]
const WORKERS = 4
const ROUNDS = 3
const AGGREGATES = 2000
const ROUND_MS = 60_000
const PAYLOAD = 'x'.repeat(400)

const here = dirname(fileURLToPath(import.meta.url))
// On the disk of the build: temporary folders of the system may be in memory, where a sync is nothing.
const folder = mkdtempSync(join(here, 'run-'))
const children = []
process.on('exit', () => {
    for (const child of children) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
})

function freePort() {
    return new Promise((done) => {
        const probe = createServer().listen(0, '127.0.0.1', () => {
            const { port } = probe.address()
            probe.close(() => done(port))
        })
    })
}

// Jobs wait for their turn in Redis, so a client asks for as long as it takes.
const connect = (port) => new Redis({ host: '127.0.0.1', port, maxRetriesPerRequest: null })

const answers = (port) => new Promise((done) => {
    const socket = knock(port, '127.0.0.1', () => socket.end(() => done(true)))
    socket.on('error', () => done(false))
})

async function until(what, probe) {
    const end = Date.now() + 20_000
    while (!(await probe().catch(() => false))) {
        if (Date.now() > end) throw new Error(`${what}: not within 20 s`)
        await new Promise((done) => setTimeout(done, 50))
    }
}

async function startTidings() {
    const url = `http://127.0.0.1:${await freePort()}`
    const data = join(folder, 'tidings')
    children.push(spawn(tidings, ['serve', '--dev', '--listen', url.slice(7), '--data', data], { stdio: 'ignore' }))
    await until('tidings', async () => (await fetch(`${url}/health/ready`)).ok)
    return url
}

async function startRedis(name, sync) {
    const port = await freePort()
    const dir = mkdtempSync(join(folder, `${name}-`))
    const settings = ['--port', port, '--bind', '127.0.0.1', '--dir', dir, '--save', '', ...sync, '--maxmemory-policy', 'noeviction']
    children.push(spawn('redis-server', settings.map(String), { stdio: 'ignore' }))
    await until('redis', () => answers(port))
    return port
}

async function call(url, method, path, body, type = 'application/json') {
    const answer = await fetch(url + path, { method, body, headers: { 'content-type': type } })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    return answer.json()
}

async function fillTidings(url, name) {
    await call(url, 'PUT', `/consumers/${name}`, JSON.stringify({ eventTypes: [`${name}.asked`], startFrom: 'latest' }))
    for (let from = 0; from < count; from += 1000) {
        const lines = []
        for (let number = from; number < Math.min(from + 1000, count); number++) {
            const data = { number, payload: PAYLOAD }
            lines.push(JSON.stringify({ eventType: `${name}.asked`, aggregateId: `a${number % AGGREGATES}`, data }))
        }
        await call(url, 'POST', '/events', lines.join('\n'), 'application/x-ndjson')
    }
}

async function fillBullmq(port, name) {
    const queue = new Queue(name, { connection: connect(port) })
    for (let from = 0; from < count; from += 1000) {
        const jobs = []
        for (let number = from; number < Math.min(from + 1000, count); number++) {
            const opts = { removeOnComplete: true, attempts: 4 }
            jobs.push({ name: 'asked', data: { number, payload: PAYLOAD }, opts })
        }
        await queue.addBulk(jobs)
    }
    await queue.close()
}

// Runs the workers until all is done; messages a second.
function work(kind, target, name) {
    return new Promise((done, failed) => {
        const late = setTimeout(() => failed(new Error(`${kind}: not done within ${ROUND_MS} ms`)), ROUND_MS)
        const workers = []
        let [first, acked] = [Infinity, 0]
        for (let number = 0; number < WORKERS; number++) {
            const worker = fork(join(here, 'worker.mjs'), [kind, target, name])
            children.push(worker)
            workers.push(worker)
            worker.on('message', (told) => {
                first = Math.min(first, told.first)
                acked += told.acked
                if (acked < count) return
                clearTimeout(late)
                workers.forEach((worker) => worker.kill())
                done(count / ((told.at - first) / 1000))
            })
        }
    })
}

const median = (rates) => rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)]
const url = await startTidings()
const always = await startRedis('always', ['--appendonly', 'yes', '--appendfsync', 'always'])
const everysec = await startRedis('everysec', ['--appendonly', 'yes', '--appendfsync', 'everysec'])
const rates = { tidings: [], bullmqSyncsAlways: [], bullmqSyncsEachSecond: [] }
for (let round = 1; round <= ROUNDS; round++) {
    const name = `round_${round}`
    await fillTidings(url, name)
    rates.tidings.push(await work('tidings', url, name))
    await fillBullmq(always, name)
    rates.bullmqSyncsAlways.push(await work('bullmq', always, name))
    await fillBullmq(everysec, name)
    rates.bullmqSyncsEachSecond.push(await work('bullmq', everysec, name))
}
console.log(`${count} messages, ${WORKERS} worker processes, median of ${ROUNDS} rounds:`)
const tidingsRate = median(rates.tidings)
for (const [name, all] of Object.entries(rates)) {
    const rate = median(all)
    console.log(`${name.padEnd(24)}${Math.round(rate).toString().padStart(8)} messages/s  ${(rate / tidingsRate).toFixed(2)}`)
}
process.exit(0)
