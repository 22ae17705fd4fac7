import { $, ask, say } from "./page.js";

const WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

try {
  const about = await ask("GET", "about");
  if (about.study) {
    $("set-count").textContent = WORDS[about.study.sets] ?? about.study.sets;
    $("sentence-count").textContent = about.study.sentences;
    $("study").hidden = false;
  }
  if (about.run) {
    $("stages").textContent = about.run.stages === 2 ? "a rough one first, then the detailed one" : "in small";
    $("try").hidden = false;
  }
} catch (error) {
  say(error.message, true);
}

$("join").addEventListener("click", async () => {
  $("join").disabled = true;
  try {
    location.href = (await ask("POST", "raters")).link;
  } catch (error) {
    say(error.message, true);
    $("join").disabled = false;
  }
});
