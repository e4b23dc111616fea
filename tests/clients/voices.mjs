// Calls the audio endpoints through the official JavaScript client and prints what it saw as one line of JSON.
//
//   node voices.mjs URL speech MODEL TEXT FORMAT          the raw stream: its type, its pieces, all its bytes
//   node voices.mjs URL speech-events MODEL TEXT FORMAT   the same as server-sent events
//   node voices.mjs URL transcribe MODEL FILE             the stream of a transcription
//   node voices.mjs URL transcribe-whole MODEL FILE       verbose_json with words

import { createReadStream } from "node:fs";
import OpenAI from "openai";

const [url, what, model, subject, format] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });

const calls = {
  async speech() {
    const reply = await client.audio.speech.create({ model, input: subject, voice: "", response_format: format });
    const pieces = [];
    for await (const piece of reply.body) pieces.push(Buffer.from(piece));
    return seen(reply, pieces);
  },

  async "speech-events"() {
    const reply = await client.audio.speech.create({
      model, input: subject, voice: "", response_format: format, stream_format: "sse",
    });
    const events = [];
    let rest = "";
    for await (const piece of reply.body) {
      rest += Buffer.from(piece).toString();
      const whole = rest.split("\n\n");
      rest = whole.pop();
      for (const event of whole) if (event.startsWith("data: ")) events.push(JSON.parse(event.slice(6)));
    }
    const deltas = events.filter((event) => event.type === "speech.audio.delta");
    const pieces = deltas.map((event) => Buffer.from(event.audio, "base64"));
    return { ...seen(reply, pieces), last: events.at(-1) };
  },

  async transcribe() {
    const stream = await client.audio.transcriptions.create({ model, file: createReadStream(subject), stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    return { events };
  },

  async "transcribe-whole"() {
    const options = { response_format: "verbose_json", timestamp_granularities: ["word", "segment"] };
    return client.audio.transcriptions.create({ model, file: createReadStream(subject), ...options });
  },
};

function seen(reply, pieces) {
  const audio = Buffer.concat(pieces).toString("base64");
  return { type: reply.headers.get("content-type"), pieces: pieces.length, audio };
}

try {
  console.log(JSON.stringify(await calls[what]()));
} catch (error) {
  console.log(JSON.stringify({ error: { status: error.status, code: error.code, param: error.param, message: error.message } }));
  process.exitCode = 1;
}
