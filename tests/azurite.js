#!/usr/bin/env node
/*
azurite's blob server, whose account keys change when they are told to.

    azurite.js --port PORT --control PORT [--modules DIRECTORY]

Needs Node 20 and `npm install azurite`; tried with azurite 3.37.0, which asks for Node 22 and runs on 20. DIRECTORY is the
node_modules folder it was installed in (target/azurite/node_modules). Both ports are of 127.0.0.1.

azurite is a real blob service: it checks the signature of every request and of every SAS against both keys of the account. What it
cannot do is regenerate a key. It reads its accounts from the environment, which nobody can change from outside, and looks there
again only once a minute. Here the accounts come over the control port instead, so that whoever plays Azure Resource Manager can
drive it:

    POST /accounts   {"accounts": {"NAME": ["KEY1", "KEY2"], ...}}    the keys in base64, as Azure gives them
    GET /ready       answers once azurite serves

The accounts told are all there are from the answer on; whoever signs with a key that is not among them is refused. The blobs of an
account that is left out are there again when it is. At the start there is no account, not even azurite's well-known one. Keys come
in a body only: a command line, an environment and a URL can be read by others.

It ends on SIGTERM, and when its stdin is a pipe and that pipe closes: whoever started it may be killed, and takes it along. What it
held was in memory only, and is gone. It writes nothing to disk, logs no request and reports to nobody.

What it deliberately does not do:

* It does not make azurite's answers those of Azure. A wrong or regenerated key is 403 AuthorizationFailure here and 403
  AuthenticationFailed there; and azurite looks neither at x-ms-date, be it stale or missing, nor at who asks (sip), nor does it
  miss an x-ms-version, which Azure demands.
* It does not delay a regeneration, as Azure's many front ends may.
* It serves no TLS, no OAuth, and none of azurite's queues and tables.

The place to hook into is not a public part of azurite. If it is gone, or no longer hooks, this program says so and ends with status
1: a blob service that refuses nothing would make every test against it worthless. The check is a rehearsal at start, over the wire,
with an account that is then forgotten.
*/
"use strict";

const { createHmac, randomBytes } = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { parseArgs } = require("node:util");

const HOST = "127.0.0.1";
const REHEARSAL = "rehearsal";

let version = "not installed";

async function main() {
  endWithParent();
  const options = readArguments();
  const { serve, setAccounts } = load(options);
  await serve();
  await rehearse(options.port, setAccounts);
  setAccounts(new Map());
  await control(options.control, setAccounts);
}

/** Ends the program, loudly. */
function fail(why) {
  console.error(`azurite.js: ${why} (azurite ${version}); this wrapper must be adapted before its results mean anything`);
  process.exit(1);
}

/** Nothing is kept, so that there is nothing to close either. */
function endWithParent() {
  const end = () => process.exit(0);
  process.on("SIGTERM", end).on("SIGINT", end);
  // A terminal, or the /dev/null of a shell's background, says nothing about the parent.
  const stdin = fs.fstatSync(0);
  if (stdin.isFIFO() || stdin.isSocket()) {
    process.stdin.on("close", end).on("error", end).resume();
  }
}

function readArguments() {
  const text = { type: "string" };
  const modules = path.join(__dirname, "../target/azurite/node_modules");
  try {
    const { values } = parseArgs({ options: { port: text, control: text, modules: { ...text, default: modules } } });
    const [port, control] = [values.port, values.control].map(Number);
    if (![port, control].every((port) => Number.isInteger(port) && port > 0 && port < 65536)) {
      throw new Error("--port and --control each want a port");
    }
    return { port, control, modules: path.resolve(values.modules) };
  } catch (error) {
    console.error(`azurite.js: ${error.message}`);
    process.exit(2);
  }
}

/** azurite's own server, with its store of accounts in our hand. */
function load({ port, modules }) {
  const part = (name) => require(path.join(modules, "azurite", name));
  try {
    version = part("package.json").version;
    const BlobConfiguration = part("dist/src/blob/BlobConfiguration").default;
    const BlobServer = part("dist/src/blob/BlobServer").default;
    // Its main program is left out: what that adds is a command line, telemetry and a start three times as long.
    const configuration = new BlobConfiguration(HOST, port);
    const wanted = { isMemoryPersistence: true, enableAccessLog: false, enableDebugLog: false };
    for (const [name, value] of Object.entries(wanted)) {
      if (!(name in configuration)) fail(`its configuration has no ${name} any more`);
      configuration[name] = value;
    }
    const server = new BlobServer(configuration);
    const store = server.accountDataStore;
    if (typeof store?.refresh !== "function" || typeof store.getAccount !== "function") fail("its store of accounts has changed");
    // azurite calls this at its start and every minute, to read the environment.
    let accounts = {};
    store.refresh = () => {
      store.accounts = accounts;
    };
    const setAccounts = (told) => {
      // Without a prototype, or an account named `constructor` would always be there.
      accounts = Object.create(null);
      for (const [name, [key1, key2]] of told) accounts[name] = { name, key1, key2 };
      store.refresh();
    };
    return { serve: () => server.start(), setAccounts };
  } catch (error) {
    fail(`cannot load what is hooked into: ${error.message.split("\n")[0]}`);
  }
}

/** Sees with its own eyes that each key of an account is let in, and that an old, a wrong and a forgotten one are not. */
async function rehearse(port, setAccounts) {
  const [first, second, third] = [1, 2, 3].map(() => randomBytes(64));
  const expect = async (key, status, what) => {
    const got = await listContainers(port, REHEARSAL, key);
    if (got !== status) fail(`${what} is answered with ${got}, not ${status}`);
  };
  setAccounts(new Map([[REHEARSAL, [first, second]]]));
  await expect(first, 200, "the first key");
  await expect(second, 200, "the second key");
  await expect(third, 403, "a wrong key");
  setAccounts(new Map([[REHEARSAL, [third, second]]]));
  await expect(first, 403, "a regenerated key");
  await expect(second, 200, "the key beside a regenerated one");
  await expect(third, 200, "a new key");
  setAccounts(new Map());
  await expect(second, 404, "a key of an account that is gone");
}

/** The status of a request signed with this key. */
function listContainers(port, account, key) {
  const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2021-12-02" };
  // An emulator has the account in its path too, hence its name twice.
  const signed = [
    "GET" + "\n".repeat(11),
    ...Object.entries(headers).map(([name, value]) => `${name}:${value}`),
    `/${account}/${account}/`,
    "comp:list",
  ].join("\n");
  const signature = createHmac("sha256", key).update(signed).digest("base64");
  headers.authorization = `SharedKey ${account}:${signature}`;
  return new Promise((resolve, reject) => {
    const request = http.get({ host: HOST, port, path: `/${account}/?comp=list`, headers, agent: false }, (answer) => {
      answer.resume().on("end", () => resolve(answer.statusCode));
    });
    request.on("error", reject);
  });
}

/** Listens for accounts. It does so last: who is answered here may ask azurite. */
function control(port, setAccounts) {
  const server = http.createServer(async (request, response) => {
    const answer = (status, text = "") => response.writeHead(status, { "content-type": "text/plain" }).end(text);
    try {
      switch (`${request.method} ${request.url}`) {
        case "GET /ready":
          return answer(200, `azurite ${version}\n`);
        case "POST /accounts":
          setAccounts(readAccounts(await bodyOf(request)));
          return answer(204);
        default:
          return answer(404, "GET /ready or POST /accounts\n");
      }
    } catch (error) {
      return answer(400, `${error.message}\n`);
    }
  });
  return new Promise((resolve, reject) => server.on("error", reject).listen(port, HOST, resolve));
}

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

/** What is wrong with the accounts told is said without what was told: there are keys in it. */
function readAccounts(body) {
  const shape = () => new Error('expected {"accounts": {"name": ["key1", "key2"], ...}}, the keys in base64');
  let told;
  try {
    told = JSON.parse(body).accounts;
  } catch {
    throw shape();
  }
  if (typeof told !== "object" || told === null || Array.isArray(told)) throw shape();
  const accounts = new Map();
  for (const [name, keys] of Object.entries(told)) {
    if (!/^[a-z0-9]{3,24}$/.test(name)) throw new Error("an account's name is 3 to 24 small letters and digits");
    if (!Array.isArray(keys) || keys.length !== 2 || !keys.every(isBase64)) throw shape();
    accounts.set(name, keys.map((key) => Buffer.from(key, "base64")));
  }
  return accounts;
}

/** Node reads anything as base64 and skips what is not; a key that was misread would be refused for the wrong reason. */
function isBase64(text) {
  return typeof text === "string" && text !== "" && Buffer.from(text, "base64").toString("base64") === text;
}

main().catch((error) => fail(error.message));
