// Asks for the models three times through the official JavaScript client, and prints how each ended, a line of JSON.
//
//   NODE_EXTRA_CA_CERTS=ca.pem node keys.mjs URL KEY

import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });

for (let asked = 0; asked < 3; asked++) {
  try {
    const { data, response } = await client.models.list().withResponse();
    const remaining = response.headers.get("x-ratelimit-remaining-requests");
    console.log(JSON.stringify({ models: data.data.map((model) => model.id), remaining }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.constructor.name, code: error.code ?? error.cause?.code }));
  }
}
