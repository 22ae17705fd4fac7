// What all pages share. Text reaches the page through textContent alone, so nothing in it can become markup.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

// The answer as JSON. Throws an Error with a sentence for the reader; `status` is 0 when there was no answer.
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw Object.assign(new Error("The server does not answer. Nothing is lost; try again."), { status: 0 });
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const text = content.error ?? `the server answers ${answer.status}`;
    throw Object.assign(new Error(text.charAt(0).toUpperCase() + text.slice(1) + "."), { status: answer.status });
  }
  return content;
}

export function say(text, isError = false) {
  const message = $("message");
  message.textContent = text;
  message.classList.toggle("error", isError);
}
