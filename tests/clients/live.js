// What a service does that follows its users live with the package ws.
//
//     live.js BASE_URL DEVICE_TOKEN INSTANCE_ID INSTANCE_KEY
//
// Logs in by itself, connects again whenever the connection ends, and writes each message as a line
// of JSON with the number of its connection. Each line of its input ends the connection.

const readline = require('readline');
const WebSocket = require('ws');

const [baseUrl, device, instance, key] = process.argv.slice(2);
const liveUrl = baseUrl.replace('http', 'ws') + '/realtime/api/v1/ws/realtime';
let socket;
let number = 0;

async function logIn() {
  const answer = await fetch(`${baseUrl}/v1/Auth/Login`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', InstanceId: instance },
    body: JSON.stringify({
      LoginFields: JSON.stringify({ Devicetoken: device }),
      Password: key,
    }),
  });
  if (!answer.ok) throw new Error(`login: ${answer.status} ${await answer.text()}`);
  return (await answer.json()).Result.AccessToken.Token;
}

function connect(token) {
  let open = 0;
  socket = new WebSocket(liveUrl);
  socket.on('open', () => {
    open = ++number;
    socket.send(
      JSON.stringify({
        type: 'authenticate',
        access_token: token,
        instance_id: instance,
        device_token: device,
        client_id: 'live.js',
      }),
    );
  });
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.type === 'error') throw new Error(text);
    if (message.type === 'ping') {
      socket.send(JSON.stringify({ type: 'pong', timestamp: Date.now() / 1000 }));
    }
    console.log(JSON.stringify({ connection: open, ...message }));
  });
  socket.on('error', (error) => {
    // Nobody listens during a restart; every other answer to an upgrade is an error.
    if (!['ECONNREFUSED', 'ECONNRESET'].includes(error.code)) throw error;
  });
  socket.on('close', () => setTimeout(connect, 20, token));
}

logIn().then((token) => {
  connect(token);
  const input = readline.createInterface({ input: process.stdin });
  input.on('line', () => socket.close());
  input.on('close', () => process.exit(0));
});
