// What the pages do beyond reading: parts that renew themselves, search while typing, actions. No state is kept.
"use strict";
(() => {
  const notice = document.getElementById("notice");
  const say = (text) => {
    const line = document.createElement("p");
    line.textContent = text;
    notice.append(line);
    setTimeout(() => line.remove(), 8000);
  };

  // Parts that the server renders again when they change, as server-sent events. What is marked or has the focus
  // waits until it has not.
  const live = document.querySelector("[data-live]");
  if (live && "EventSource" in window) {
    const waiting = new Map(), units = [86400, 3600, 60, 1], agos = document.body.dataset.ago.split("|");
    let events = null, ahead = 0;
    const tell = () => {
      const now = Date.now() / 1000 + ahead;
      for (const each of live.querySelectorAll("[data-moment]")) {
        const passed = Math.max(0, now - Number(each.dataset.moment));
        const place = units.findIndex((unit) => passed >= unit || unit === 1);
        const text = agos[place].replace("{n}", Math.floor(passed / units[place]));
        if (each.textContent !== text) each.textContent = text;
      }
    };
    const show = () => {
      if (String(getSelection())) return;
      for (const [name, html] of waiting) {
        const part = live.querySelector(`[data-part="${name}"]`);
        if (!part || part.contains(document.activeElement)) continue;
        part.innerHTML = html;
        waiting.delete(name);
      }
      tell();
      document.dispatchEvent(new CustomEvent("mirror:live"));
    };
    const follow = () => {
      events = new EventSource(live.dataset.live);
      events.onmessage = (event) => {
        const { now, parts } = JSON.parse(event.data);
        ahead = now - Date.now() / 1000;
        for (const name in parts) waiting.set(name, parts[name]);
        show();
      };
    };
    const hold = () => { if (events) events.close(); events = null; };
    document.addEventListener("visibilitychange", () => (document.hidden ? hold() : follow()));
    window.addEventListener("pagehide", hold);
    follow();
  }

  // Search while typing.
  const search = document.querySelector("form[data-search]");
  if (search) {
    const field = search.querySelector("input"), results = document.getElementById("results");
    let timer = 0, asked = 0;
    const look = async () => {
      const address = new URL(location.href);
      address.search = field.value ? new URLSearchParams({ search: field.value }) : "";
      history.replaceState(null, "", address);
      const number = (asked += 1);
      address.searchParams.set("part", "rows");
      const reply = await fetch(address);
      if (reply.ok && number === asked) results.innerHTML = await reply.text();
    };
    field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, 150); });
  }

  // Copy.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.parentElement.querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    say(button.textContent + " ✓");
  });

  // Actions: a question first where something is lost.
  const send = async (method, path, body) => {
    const reply = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-Registry-Mirror": "1" },
      body: JSON.stringify(body),
    });
    const found = await reply.json();
    if (!reply.ok) throw new Error([found.error, found.to_do].filter(Boolean).join(". "));
    return found;
  };
  const ask = async (button) => {
    const dialog = document.getElementById("question");
    const reply = await fetch(`/api/v1/removal?reference=${encodeURIComponent(button.dataset.reference)}`);
    const found = await reply.json();
    if (!reply.ok) throw new Error(found.error);
    dialog.querySelector("[data-freed]").textContent = found.freed_text;
    dialog.querySelector("[data-list]").textContent = [...found.images, ...found.pinned].join(", ");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    const { action, reference, done } = button.dataset;
    button.disabled = true;
    try {
      if (action === "remove" && !(await ask(button))) return;
      const [method, path] = {
        pin: ["POST", "/api/v1/pins"], unpin: ["DELETE", "/api/v1/pins"],
        warm: ["POST", "/api/v1/warm"], remove: ["DELETE", "/api/v1/image"],
      }[action];
      await send(method, path, { reference });
      say(done);
      if (action === "remove") location.assign("/images");
      else if (action !== "warm") setTimeout(() => location.reload(), 600);
    } catch (error) {
      say(document.body.dataset.failed + error.message);
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
})();
