// Pictures of one sentence, or of the way between two.

import { $, ask, element, say } from "./page.js";

const POLL_MS = 300;
let job = null; // what the server last said about the pictures that are shown
let prompt = null;
let about = null;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const number = (id) => ($(id).value.trim() === "" ? NaN : Number($(id).value));

$("dice").addEventListener("click", () => {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] >>> 12;
});

$("two").addEventListener("click", () => {
  const hidden = !$("second").hidden;
  $("second").hidden = hidden;
  $("two").textContent = hidden ? "Add a second sentence" : "One sentence only";
  $("two").setAttribute("aria-expanded", String(!hidden));
  if (!hidden) $("other").focus();
});

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  prompt = {
    sentence: $("sentence").value,
    other: $("second").hidden ? null : $("other").value,
    count: number("number"),
    seed: number("seed"),
  };
  $("generate").disabled = true;
  say("");
  try {
    job = await ask("POST", "jobs", prompt);
    begin();
    while (job.state === "waiting" || job.state === "generating") {
      follow();
      await pause(POLL_MS);
      job = await ask("GET", `jobs/${job.id}`);
    }
    follow();
    if (job.state === "failed") throw new Error(job.error);
    $("sheet").href = `jobs/${job.id}/sheet.png`;
    $("sheet").hidden = false;
    say(`${job.total} pictures generated.`);
  } catch (error) {
    $("result").classList.add("old"); // what is still shown is not what was asked for
    say(error.message, true);
  } finally {
    $("working").hidden = true;
    $("generate").disabled = false;
  }
});

function begin() {
  $("working").hidden = $("result").hidden = false;
  $("result").classList.remove("old");
  $("prompt").textContent = prompt.other === null ? prompt.sentence : `${prompt.sentence} → ${prompt.other}`;
  $("sheet").hidden = true;
  $("between").hidden = job.steps === 1;
  $("slider").max = job.steps - 1;
  $("slider").value = 0;
  $("from").textContent = prompt.sentence;
  $("to").textContent = prompt.other ?? "";
  $("pictures").classList.toggle("pairs", job.stages === 2);
  $("pictures").replaceChildren(
    ...Array.from({ length: job.count }, (_, picture) => {
      const stages = Array.from({ length: job.stages }, (_, stage) =>
        element(
          "figure",
          {},
          element("div", { className: "frame" }, element("img", { alt: "", hidden: true })),
          element(
            "figcaption",
            {},
            stage === 0 ? "Stage-I " : "Stage-II ",
            element("a", { className: "get", hidden: true, "aria-label": `Download picture ${picture + 1}` }, "download"),
          ),
        ),
      );
      return element("li", { className: "generated" }, ...stages);
    }),
  );
}

function follow() {
  $("progress").max = job.total;
  $("progress").value = job.generated;
  $("state").textContent =
    job.state === "waiting" && job.ahead > 0
      ? `${job.ahead} ${job.ahead === 1 ? "sentence" : "sentences"} before yours`
      : `${job.generated} of ${job.total} pictures`;
  paint();
}

function paint() {
  const step = Number($("slider").value);
  document.querySelectorAll("#pictures > li").forEach((item, picture) => {
    const there = step * job.count + picture < job.generated;
    item.querySelectorAll("figure").forEach((figure, stage) => {
      const image = figure.querySelector("img");
      const link = figure.querySelector("a");
      image.hidden = link.hidden = !there;
      if (!there) return;
      const source = `jobs/${job.id}/${step}/${picture}/${stage + 1}.png`;
      if (image.getAttribute("src") !== source) image.src = source;
      image.alt = `Picture ${picture + 1}, Stage-${"I".repeat(stage + 1)}: ${step === 0 ? prompt.sentence : prompt.other}`;
      link.href = source;
      link.download = `picture-${picture + 1}-step-${step}-stage-${stage + 1}.png`;
    });
  });
}

$("slider").addEventListener("input", () => {
  if (job) paint();
});

try {
  about = (await ask("GET", "about")).run;
  $("number").max = about.most;
  $("sentence").maxLength = $("other").maxLength = about.longest;
} catch (error) {
  say(error.message, true);
}
