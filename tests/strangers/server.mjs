// A development server on a folder of its own, and a subscriber for its webhooks.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asks until `probe` gives something. */
export async function until(what, probe, ms = 20_000) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(10)) {
    const found = await probe();
    if (found) return found;
  }
  throw new Error(`${what}: not within ${ms} ms`);
}

async function freePort() {
  const socket = createSocket();
  await new Promise((done) => socket.listen(0, "127.0.0.1", done));
  const { port } = socket.address();
  await new Promise((done) => socket.close(done));
  return port;
}

export class Server {
  static async start(binary, settings = {}) {
    const server = new Server();
    server.binary = binary;
    server.settings = settings;
    server.folder = await mkdtemp(join(tmpdir(), "strangers-"));
    server.port = await freePort();
    server.url = `http://127.0.0.1:${server.port}`;
    await server.again();
    return server;
  }

  /** Starts it on the same folder and port. */
  async again() {
    const settings = Object.entries(process.env).filter(([name]) => !name.startsWith("TIDINGS_"));
    const data = join(this.folder, "data");
    const child = spawn(this.binary, ["serve", "--dev", "--listen", `127.0.0.1:${this.port}`, "--data", data], {
      cwd: this.folder,
      env: { ...Object.fromEntries(settings), ...this.settings },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.child = child;
    child.stderr.on("data", (text) => (this.stderr = ((this.stderr ?? "") + text).slice(-4_000)));
    await until("ready", async () => {
      if (child.exitCode !== null) throw new Error(`the server ended: ${this.stderr}`);
      const answer = await fetch(`${this.url}/health/ready`).catch(() => null);
      return answer?.ok;
    });
  }

  /** Kills it as a crash would. */
  async kill() {
    const ended = new Promise((done) => this.child.once("exit", done));
    this.child.kill("SIGKILL");
    await ended;
  }

  async end() {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Posts; an answer that is not 2xx is an error with its text. */
  async post(path, body, headers = { "content-type": "application/json" }) {
    const text = typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body);
    const answer = await fetch(this.url + path, { method: "POST", headers, body: text });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async get(path) {
    const answer = await fetch(this.url + path);
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return answer.json();
  }
}

/** Keeps what it was sent; answers as `decide` says for the number of posts before. */
export async function receiver(decide = () => 200) {
  const posts = [];
  const http = createServer((request, response) => {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => {
      response.statusCode = decide(posts.length);
      posts.push({ headers: request.headers, body: Buffer.concat(pieces), status: response.statusCode });
      response.end();
    });
  });
  await new Promise((done) => http.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${http.address().port}/hooks`;
  const wait = (count) => until(`${count} posts`, () => posts.length >= count && posts);
  return { url, posts, wait, close: () => http.close() };
}
