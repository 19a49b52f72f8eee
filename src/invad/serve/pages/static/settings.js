// Forms that call the interface: data-call says which call, the fields are its body.

import { api, prefix, say } from "./app.js";

function fieldsOf(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    if (field.type === "checkbox") {
      body[field.name] ??= [];
      if (field.checked) body[field.name].push(field.value);
    } else body[field.name] = field.value;
  }
  return body;
}

async function attempt(call) {
  try {
    await call();
  } catch (error) {
    say(error.message, "wrong");
  }
}

for (const form of document.querySelectorAll("form[data-call]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [method, path] = form.dataset.call.split(" ");
    attempt(async () => {
      const made = await api(path, { method, json: fieldsOf(form) });
      if (form.dataset.secret) {
        const place = document.getElementById(form.dataset.secret);
        place.textContent = `Shown this once: ${made.secret}`;
        place.hidden = false;
        form.reset();
      } else if (form.dataset.then) location.assign(`${prefix}/${form.dataset.then}`);
      else location.reload();
    });
  });
}

for (const button of document.querySelectorAll("[data-delete]")) {
  button.addEventListener("click", () => {
    if (!confirm(button.dataset.sure)) return;
    attempt(async () => {
      await api(button.dataset.delete, { method: "DELETE" });
      location.reload();
    });
  });
}

for (const choice of document.querySelectorAll("[data-role]")) {
  choice.addEventListener("change", () =>
    attempt(async () => {
      const user = encodeURIComponent(choice.dataset.role);
      await api(`/api/v1/users/${user}`, { method: "PATCH", json: { role: choice.value } });
      say(`${choice.dataset.role} is ${choice.value}`);
    }),
  );
}
