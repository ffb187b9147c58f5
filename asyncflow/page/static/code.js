// The source files of a flow as they were when the run started.

import { html } from "./lib.js";
import { url, useData } from "./api.js";
import { Copy, Empty, Problem, Waiting } from "./parts.js";
import { changed, one } from "./router.js";

/** The tab of a run. */
export function Code({ route, run }) {
  const { data, error, busy, reload } = useData(url(["runs", run.flow, run.run_id, "code"]), run.pathspec);
  if (error) return html`<${Problem} error=${error} retry=${reload} />`;
  if (!data && busy) return html`<${Waiting} />`;
  const names = Object.keys(data?.files ?? {}); // null where no source was kept
  if (!names.length) {
    return html`<section class="panel"><${Empty} title="No source was kept with this run" /></section>`;
  }
  const asked = one(route, "file", data.script);
  const file = names.includes(asked) ? asked : names[0];
  return html`<section class="panel code">
    <header>
      <h2 class="mono cut">${file}</h2>
      ${names.length > 1 &&
      html`<nav class="chips" aria-label="Files">
        ${names.map((name) => html`<a class="chip" href=${changed(route, { file: name })} aria-current=${name === file ? "true" : undefined} key=${name}>${name}</a>`)}
      </nav>`}
      <${Copy} text=${data.files[file]} label="Copy the file" />
    </header>
    <pre class="source" tabindex="0">${numbered(data.files[file])}</pre>
    ${(data.cut || data.left_out?.length > 0) && html`<p class="padded muted small">${data.cut ? "The text was cut to fit. " : ""}${data.left_out?.length ? `Left out: ${data.left_out.join(", ")}` : ""}</p>`}
  </section>`;
}

function numbered(text) {
  const lines = text.replace(/\n$/, "").split("\n");
  const wide = String(lines.length).length;
  return lines.map((line, at) => `${String(at + 1).padStart(wide)}  ${line}`).join("\n");
}
