// Run the search worker of the built site: node search.js WORKER INDEX, queries as JSON on stdin, results as JSON on stdout.
const fs = require("node:fs");
const vm = require("node:vm");

const [worker, index] = process.argv.slice(2);
const queries = JSON.parse(fs.readFileSync(0, "utf-8"));
const SETUP = 0;
const QUERY = 2;
const answers = [];

// what a browser gives to a worker
globalThis.self = globalThis;
globalThis.addEventListener = (_, listener) => { globalThis.receive = listener; };
globalThis.postMessage = (message) => answers.push(message);

vm.runInThisContext(fs.readFileSync(worker, "utf-8"));

async function main() {
  const data = JSON.parse(fs.readFileSync(index, "utf-8"));
  await receive({ data: { type: SETUP, data: { ...data, options: { suggest: false } } } });
  for (const query of queries) {
    await receive({ data: { type: QUERY, data: query } });
  }
  const results = answers.slice(1).map((answer) => answer.data.items.map((page) => page.map((hit) => hit.location)));
  process.stdout.write(JSON.stringify(results));
}

main();
