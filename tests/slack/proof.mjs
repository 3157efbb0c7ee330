// Slack's own client for Node against the tests' stand-in: what it was told, as JSON on one line.
//
// Usage: node proof.mjs API_URL TOKEN FOLDER_OF_PACKAGES

import { createRequire } from "node:module";

const [url, token, packages] = process.argv.slice(2);
const { WebClient, LogLevel } = createRequire(`${packages}/`)("@slack/web-api");
const options = { slackApiUrl: url, logLevel: LogLevel.ERROR, rejectRateLimitedCalls: true, retryConfig: { retries: 0 } };
const client = new WebClient(token, options);
const told = {};

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return { code: error.code, error: error.data?.error ?? null, retry_after: error.retryAfter ?? null };
  }
  return null;
}

const blocks = [{ type: "section", text: { type: "mrkdwn", text: "from Node" } }];
// The stand-in answers the first message with a limit.
told.limited = await refused(() => client.chat.postMessage({ channel: "#ops", text: "t", blocks }));
const user = (await client.users.lookupByEmail({ email: "bert@example.com" })).user.id;
const channel = (await client.conversations.open({ users: user })).channel.id;
const message = await client.chat.postMessage({ channel, text: "t", blocks });
told.message = [message.channel, message.ts];
const shared = await client.filesUploadV2({
  channel_id: channel,
  filename: "node.csv",
  title: "findings",
  file: Buffer.from("a,b\n1,2\n"),
});
told.files = shared.files.length;
told.nobody = await refused(() => client.users.lookupByEmail({ email: "nobody@example.com" }));
told.nowhere = await refused(() => client.chat.postMessage({ channel: "C0000NONE", text: "t", blocks }));
told.wrong_token = await refused(() => new WebClient("xoxb-wrong", options).conversations.open({ users: user }));
console.log(JSON.stringify(told));
