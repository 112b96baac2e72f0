(() => {
"use strict";
const element = (id) => document.getElementById(id);
const form = element("form"), photo = element("photo"), send = element("send");

function tell(text, wrong) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", Boolean(wrong));
}

async function reason(answer) {
  try {
    const { where, problem, remedy } = (await answer.json()).error;
    return `${where} ${problem}; ${remedy}`;
  } catch {
    return `The server answered with status ${answer.status}.`;
  }
}

async function recover(file) {
  const known = photo.accept.split(",");
  const type = known.includes(file.type) ? file.type : form.dataset.unknown;
  const how = { method: "POST", body: file, headers: { "Content-Type": type } };
  const answer = await fetch("v1/recover?format=html", how);
  if (!answer.ok) throw new Error(await reason(answer));
  return answer.text();
}

photo.addEventListener("change", () => tell(""));
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const file = photo.files[0];
  if (!file) return;
  if (file.size > Number(form.dataset.mostBytes)) {
    tell(`The photo has more than ${form.dataset.megabytes} MB; scale it down.`, true);
    return;
  }
  send.disabled = true;
  tell("Recovering the people …");
  try {
    element("result").srcdoc = await recover(file);
    element("result").hidden = false;
    element("start").hidden = true;
    tell("Done: the result is below.");
  } catch (error) {
    const lost = error instanceof TypeError;
    tell(lost ? "The server cannot be reached; try again." : error.message, true);
  } finally {
    send.disabled = false;
  }
});
})();
