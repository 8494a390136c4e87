// A worker of compare.mjs: takes, does nothing, acknowledges, and tells how many.
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'

const [kind, target, name] = process.argv.slice(2)
// Of BullMQ, jobs at a time in a process; of Tidings, messages of a fetch.
const AT_ONCE = 100

if (kind === 'bullmq') {
    let [first, acked] = [Infinity, 0]
    const connection = new Redis({ host: '127.0.0.1', port: Number(target), maxRetriesPerRequest: null })
    const worker = new Worker(name, async () => { first = Math.min(first, Date.now()) }, { connection, concurrency: AT_ONCE })
    worker.on('completed', () => { acked += 1 })
    setInterval(() => {
        if (acked === 0) return
        process.send({ first, acked, at: Date.now() })
        acked = 0
    }, 10)
} else {
    const headers = { 'content-type': 'application/json' }
    const post = async (path, body) => {
        const answer = await fetch(`${target}/consumers/${name}/${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
        if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
        return answer.json()
    }
    for (;;) {
        const { messages } = await post('fetch', { max: AT_ONCE, wait: '1s' })
        const first = Date.now()
        if (messages.length === 0) continue
        const { acked } = await post('ack', { tokens: messages.map((message) => message.ackToken) })
        process.send({ first, acked, at: Date.now() })
    }
}
