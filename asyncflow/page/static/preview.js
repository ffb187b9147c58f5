// What a value is, as far as its stored bytes tell without being run; and how to get all of it.

import { html, useState } from "./lib.js";
import { url, useData } from "./api.js";
import { many, number, printableLines, size } from "./format.js";
import { Empty, Icon, Problem } from "./parts.js";

/** The artifacts of a task as a list; each opens to a longer preview. */
export function Artifacts({ task, artifacts, count }) {
  if (!artifacts.length)
    return html`<${Empty} title=${task.status === "running" ? "No artifacts yet" : "No artifacts"}>
      ${task.status === "running" && html`<p>They are stored when the step ends.</p>`}
    <//>`;
  return html`<ul class="artifacts">
    ${artifacts.map((artifact) => html`<${Artifact} task=${task} artifact=${artifact} key=${artifact.name} />`)}
    ${count > artifacts.length && html`<li class="padded muted small">and ${number(count - artifacts.length)} more</li>`}
  </ul>`;
}

function Artifact({ task, artifact }) {
  const [open, setOpen] = useState(false);
  const place = placeOf(task, artifact.name);
  return html`<li>
    <details onToggle=${(event) => setOpen(event.currentTarget.open)}>
      <summary data-row>
        <b class="cut mono">${artifact.name}</b>
        <span class="cut brief mono muted">${briefly(artifact.preview)}</span>
        <span class="muted small nowrap kind">${artifact.type} · ${size(artifact.size)}</span>
      </summary>
      ${open && html`<${Whole} place=${place} artifact=${artifact} />`}
    </details>
  </li>`;
}

function Whole({ place, artifact }) {
  const { data, error } = useData(url(place));
  const raw = url(place, { raw: 1 });
  return html`<div class="padded stack tight">
    <${Problem} error=${error} />
    <${Preview} preview=${data?.preview ?? artifact.preview} shown=${url(place, { raw: 1, show: 1 })} />
    <p class="row muted small">
      <a class="button" href=${raw} download><${Icon} name="down" /> Download</a>
      <span>${size(artifact.size)}${data?.encoding ? `, ${data.encoding}` : ""}; the bytes as they are stored</span>
      <code class="cut" title=${artifact.sha}>${artifact.sha}</code>
    </p>
  </div>`;
}

/** One preview. `shown` is the address of an image's bytes. */
export function Preview({ preview, shown = null }) {
  if (!preview) return null;
  switch (preview.kind) {
    case "table":
      return html`<${Table} preview=${preview} />`;
    case "image":
      return shown
        ? html`<figure class="picture">
            <img src=${shown} alt=${`${preview.format}, ${preview.width} × ${preview.height}`} loading="lazy" />
            <figcaption class="muted small">${preview.format}, ${preview.width} × ${preview.height}</figcaption>
          </figure>`
        : html`<span class="muted">${preview.format}, ${preview.width} × ${preview.height}</span>`;
    case "array":
      return html`<p class="muted small">${preview.dtype}, shape (${(preview.shape ?? []).join(", ")})</p>
        <pre class="block" tabindex="0">${printableLines(preview.text)}</pre>`;
    case "unknown":
      return html`<p class="muted">${preview.text}</p>`;
    default:
      return html`<pre class="block" tabindex="0">${printableLines(preview.text)}${preview.cut ? " …" : ""}</pre>
        ${preview.length !== null && preview.length !== undefined && html`<p class="muted small">length ${number(preview.length)}</p>`}`;
  }
}

function Table({ preview }) {
  return html`<div class="scroll-x" tabindex="0">
      <table class="values">
        <thead>
          <tr>
            ${preview.columns.map((column, at) => html`<th key=${at}>${column.name}<br /><span class="muted small">${column.dtype}</span></th>`)}
          </tr>
        </thead>
        <tbody>
          ${preview.rows.map((row, at) => html`<tr key=${at}>${row.map((cell, place) => html`<td key=${place}>${cell}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
    <p class="muted small">
      ${preview.length === null ? `the first ${many(preview.rows.length, "row")}` : many(preview.length, "row")}${preview.columns_count > preview.columns.length ? `, ${many(preview.columns_count, "column")}` : ""}
    </p>`;
}

/** A preview in one line. */
export function briefly(preview) {
  if (!preview) return "";
  switch (preview.kind) {
    case "array":
      return `${preview.dtype} (${(preview.shape ?? []).join(", ")})`;
    case "table":
      return `${preview.length === null ? "?" : number(preview.length)} × ${preview.columns_count}: ${preview.columns.map((column) => column.name).join(", ")}`;
    case "image":
      return `${preview.format} ${preview.width} × ${preview.height}`;
    default:
      return printableLines(preview.text).replace(/\s+/g, " ").slice(0, 160);
  }
}

/** Where an artifact of a task is, as parts of an address. */
export function placeOf(task, name) {
  const [flow, run, step, id] = task.pathspec.split("/");
  return ["runs", flow, run, "artifact", step, id, name];
}
