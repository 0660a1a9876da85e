'use strict';

// An example app: counts the views of each session, in memory, as an Express
// app with express-session would. No dependencies; Node.js 18 or later.
//
//   GET  /       who answers, and how often this session was here
//   POST /delay  {"delay": 250}: from now on each GET / blocks the process 250 ms
//
// Environment: PORT (3000); TAG, what the server calls itself (its name).

const crypto = require('node:crypto');
const http = require('node:http');
const os = require('node:os');

const PORT = Number(process.env.PORT || 3000);
const TAG = process.env.TAG || process.env.TIDINGS_NAME || os.hostname();

const COOKIE = 'NODESESSID';
const SESSION_AGE = 30 * 60 * 1000; // ms without a view
const MAX_SESSIONS = 100_000; // whoever sends no cookie gets a new one each time
const MAX_BODY = 1024; // characters
const MAX_DELAY = 60_000; // ms
const STOP = 3000; // ms that open requests may take after SIGTERM

let delay = 0;
const sessions = new Map(); // id → {views, seen}, the longest unseen first

function visit(id, now = Date.now()) {
  let session = sessions.get(id);
  sessions.delete(id);
  if (!session || now - session.seen > SESSION_AGE) {
    id = crypto.randomUUID();
    session = { views: 0 };
  }
  session.views += 1;
  session.seen = now;
  sessions.set(id, session);
  for (const [oldest, { seen }] of sessions) {
    if (sessions.size <= MAX_SESSIONS && now - seen <= SESSION_AGE) break;
    sessions.delete(oldest);
  }
  return { id, views: session.views };
}

function sessionId(request) {
  const cookies = (request.headers.cookie || '').split(/; */);
  return cookies.find((cookie) => cookie.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
}

// Blocks the whole process: every other request waits too.
function sleep(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function view(request, response) {
  if (delay > 0) sleep(delay);
  const ip = address(request);
  const { id, views } = visit(sessionId(request));
  if (views === 1) response.setHeader('Set-Cookie', `${COOKIE}=${id}; Path=/; HttpOnly`);
  json(response, 200, { hello: 'world!', ip, host: os.hostname(), tag: TAG, sessionViews: views, id });
}

async function setDelay(request, response) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    if (body.length < MAX_BODY) body += chunk; // of a longer one, no more is kept
  }
  let wanted;
  try {
    wanted = JSON.parse(body)?.delay;
  } catch {} // not JSON: refused here
  if (!Number.isInteger(wanted) || wanted < 0 || wanted > MAX_DELAY) {
    const message = `expected JSON such as {"delay": 250}, in milliseconds, at most ${MAX_DELAY}`;
    return json(response, 400, { message });
  }
  delay = wanted;
  json(response, 200, { message: `New timeout of ${delay}ms configured.` });
}

function json(response, status, value) {
  const body = JSON.stringify(value);
  // The last answer on a connection says so, so that nobody asks again on it.
  if (!server.listening) response.setHeader('Connection', 'close');
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body); // Node.js leaves the body out of what answers HEAD.
}

// This server's own address, as whoever connected reached it.
function address(request) {
  return request.socket.localAddress?.replace(/^::ffff:/, '');
}

const server = http.createServer((request, response) => {
  response.setHeader('x-backend-ip', address(request) || '');
  const what = `${request.method} ${request.url.split('?')[0]}`;
  if (what === 'GET /' || what === 'HEAD /') return view(request, response);
  if (what === 'POST /delay') return setDelay(request, response).catch(() => response.destroy());
  json(response, 404, { message: `Cannot ${what}` });
});

// Longer than a load balancer keeps an idle connection, so that it is never
// closed here just as the next request comes. Told in `Keep-Alive: timeout`.
server.keepAliveTimeout = 65_000;
server.on('error', (error) => {
  console.error(`port ${PORT}: ${error.message}`);
  process.exit(1);
});
server.listen(PORT, () => console.log(`${TAG} listens on port ${PORT}`));

function stop() {
  server.close();
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), STOP).unref();
}
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, stop);
