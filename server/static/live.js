// Looks at the page again when the event stream says that something happened, and every few seconds (progress is no event, and
// a stream may be cut), and swaps the sections that changed, so that nothing flickers and a scroll position, an open fold or the
// focus stays. Without scripts the page reloads itself instead (<noscript> in base.html).
const { refreshS, events } = document.body.dataset;
const dot = document.getElementById("live");
const sections = () => [...document.querySelectorAll("[data-live]")];
const shown = new Map(sections().map((s) => [s.id, s.innerHTML]));

function say(word, detail) {
  dot.className = `live ${word}`;
  dot.textContent = detail;
}

function swap(old, fresh) {
  const open = [...old.querySelectorAll("details[open]")].map((d) => d.id);
  const at = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const left = [...old.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
  old.innerHTML = fresh;
  open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  old.querySelectorAll(".scroll").forEach((e, i) => (e.scrollLeft = left[i] ?? 0));
  if (at) old.querySelector(`a[href="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
}

async function look() {
  if (!document.hidden && document.getSelection().isCollapsed) {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of sections()) {
        const fresh = page.getElementById(old.id)?.innerHTML ?? "";
        if (fresh !== shown.get(old.id)) swap(old, fresh);
        shown.set(old.id, fresh);
      }
      document.title = page.title;
      if (!page.body.dataset.refreshS) return over();
      say("on", "live");
    } catch {
      say("off", "no answer, trying again");
    }
  }
  clearTimeout(next);
  next = setTimeout(look, refreshS * 1000 * (stream?.readyState === 1 ? 4 : 1));
}

function over() {
  stream?.close();
  clearTimeout(next);
  say("over", "");
}

// A hidden tab lets its stream go: a browser has six connections to a host.
function listen() {
  stream?.close();
  if (!events || document.hidden) return;
  stream = new EventSource(events);
  stream.onmessage = () => (soon ??= setTimeout(() => ((soon = null), look()), 1000));
}

let next, soon, stream;
say("on", "live");
listen();
document.addEventListener("visibilitychange", () => (listen(), look()));
next = setTimeout(look, refreshS * 1000);
