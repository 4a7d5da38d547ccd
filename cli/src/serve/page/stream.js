// Server-sent events.

/** The JSON of each event of a response's body, until `[DONE]`. A body that ends without it was cut. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("cut");
      rest += value;
      // A carriage return at the end may be the first half of a line break.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line === "" && data.length > 0) {
          const whole = data.join("\n");
          data = [];
          if (whole === "[DONE]") return;
          yield JSON.parse(whole);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
