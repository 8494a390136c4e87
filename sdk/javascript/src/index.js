// Receive events of Tidings safely: verify, process once, keep order, work off queues. No dependencies.
export { Consumer, Nack, Refused } from "./consume.js";
export { Busy, MemoryInbox, RedisInbox, SqlInbox } from "./inbox.js";
export { Receiver } from "./receive.js";
export { compare, SequenceGuard } from "./sequence.js";
export { sign, VerificationError, Verifier } from "./verify.js";
