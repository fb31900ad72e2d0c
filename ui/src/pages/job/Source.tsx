// What was delivered: description, checksums, findings.

import type { ReactNode } from "react";
import type { Schemas } from "../../api/client";
import { Copy } from "../../components/Copy";
import { isMoving } from "../../components/JobBits";
import { Empty, Loading } from "../../components/Messages";
import { Badge, Tag } from "../../components/State";
import { bitRate, bytes, clock, count, frameRate } from "../../format";
import { codeWord, SEVERITY, sentence } from "../../words";

type Stream = Schemas["MediaStream"];

export function Source({ detail }: { detail: Schemas["JobDetail"] }) {
  const { media, checksums, job } = detail;
  return (
    <section className="panel">
      <div className="panel-head">
        <h2>Source</h2>
      </div>
      {!media && !checksums ? (
        isMoving(job) ? (
          <Loading rows={4} />
        ) : (
          <Empty title="The source was not inspected" />
        )
      ) : (
        <>
          <div className="panel-body">
            <dl className="facts">
              <dt>File</dt>
              <dd className="row">
                <span className="break">{job.source}</span>
                <Copy value={job.source} label="Copy the path" />
              </dd>
              {media && (
                <>
                  <dt>Container</dt>
                  <dd>{media.container}</dd>
                  <dt>Duration</dt>
                  <dd>{media.duration_us != null ? clock(media.duration_us) : "not stated"}</dd>
                  <dt>Size</dt>
                  <dd>
                    {bytes(media.size)}{" "}
                    <span className="dim">
                      ({media.size.toLocaleString("en").replaceAll(",", " ")} B)
                    </span>
                  </dd>
                </>
              )}
              {checksums &&
                (["sha256", "md5", "xxh3"] as const).map((name) => (
                  <Fact key={name} name={name}>
                    <code className="break">{checksums[name]}</code>
                    <Copy value={checksums[name]} label={`Copy ${name}`} />
                  </Fact>
                ))}
            </dl>
          </div>
          {media && (
            // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
            <section className="scroll ruled" aria-label="Streams" tabIndex={0}>
              <table className="table" aria-label="Streams">
                <thead>
                  <tr>
                    <th className="num">#</th>
                    <th>Kind</th>
                    <th>Codec</th>
                    <th>Language</th>
                    <th className="fill">What</th>
                    <th className="num">Bit rate</th>
                  </tr>
                </thead>
                <tbody>
                  {media.streams.map((stream) => (
                    <tr key={stream.index}>
                      <td className="num faint">{stream.index}</td>
                      <td>{stream.kind}</td>
                      <td className="nowrap">
                        {stream.codec}
                        {stream.profile && <span className="dim"> {stream.profile}</span>}
                      </td>
                      <td className="nowrap">
                        {stream.language ?? <span className="faint">–</span>}
                        {stream.default && (
                          <>
                            {" "}
                            <Tag title="Marked as default track">default</Tag>
                          </>
                        )}
                      </td>
                      <td style={{ minWidth: 260 }}>{streamWords(stream)}</td>
                      <td className="num dim">
                        {stream.bit_rate ? bitRate(stream.bit_rate) : "–"}
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </section>
          )}
        </>
      )}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd className="row">{children}</dd>
    </>
  );
}

/** Names of the code points of ITU-T H.273 that deliveries use. */
const PRIMARIES: Record<number, string> = {
  1: "BT.709",
  5: "BT.601 625",
  6: "BT.601 525",
  9: "BT.2020",
  11: "DCI-P3",
  12: "Display P3",
};
const TRANSFER: Record<number, string> = {
  1: "BT.709",
  4: "gamma 2.2",
  5: "gamma 2.8",
  6: "BT.601",
  8: "linear",
  13: "sRGB",
  14: "BT.2020",
  15: "BT.2020",
  16: "PQ",
  18: "HLG",
};

const FIELDS: Record<string, string> = {
  progressive: "progressive",
  top_first: "interlaced, top field first",
  bottom_first: "interlaced, bottom field first",
};

export function streamWords(stream: Stream): string {
  const { video, audio } = stream;
  const parts: string[] = [];
  if (video) {
    parts.push(`${video.width}×${video.height}`);
    if (video.sample_aspect && video.sample_aspect !== "1/1") {
      parts.push(`pixels ${video.sample_aspect.replace("/", ":")}`);
    }
    if (video.frame_rate) parts.push(frameRate(video.frame_rate));
    parts.push(`${video.pixel_format}, ${video.depth} bit`);
    const fields = FIELDS[video.fields];
    if (fields) parts.push(fields);
    const colour = [
      video.primaries != null && (PRIMARIES[video.primaries] ?? `primaries ${video.primaries}`),
      video.transfer != null && (TRANSFER[video.transfer] ?? `transfer ${video.transfer}`),
      video.full_range != null && (video.full_range ? "full range" : "limited range"),
    ].filter((part): part is string => typeof part === "string");
    if (colour.length > 0) parts.push([...new Set(colour)].join(", "));
    if (video.hdr10) parts.push("HDR10");
    if (video.dolby_vision) parts.push(`Dolby Vision ${video.dolby_vision}`);
    if (video.rotation) parts.push(`rotated by ${video.rotation}°`);
  }
  if (audio) {
    parts.push(audio.layout ?? count(audio.channels, "channel"));
    parts.push(`${audio.sample_rate / 1000} kHz`);
    if (audio.depth) parts.push(`${audio.depth} bit`);
  }
  if (stream.title) parts.push(`“${stream.title}”`);
  return parts.join(" · ");
}

const ORDER: Record<Schemas["Severity"], number> = { error: 0, warning: 1, info: 2 };

export function Findings({ findings }: { findings: Schemas["Finding"][] }) {
  if (findings.length === 0) return null;
  const sorted = findings.toSorted((a, b) => ORDER[a.severity] - ORDER[b.severity]);
  return (
    <section className="panel" aria-label="Findings">
      <div className="panel-head">
        <h2>Findings</h2>
        <span className="dim small">{findings.length}</span>
      </div>
      <div>
        {sorted.map((finding, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: findings never change once they are stated
          <div key={index} className="finding">
            <Badge word={SEVERITY[finding.severity]} />
            <div style={{ minWidth: 0 }}>
              <div className="break">
                <span className="strong">{codeWord(finding.code)}.</span>{" "}
                {sentence(finding.message)}
              </div>
              <div className="small dim">
                {[
                  finding.task,
                  finding.stream != null && `stream ${finding.stream}`,
                  finding.first_frame != null &&
                    (finding.last_frame != null && finding.last_frame !== finding.first_frame
                      ? `frames ${finding.first_frame} to ${finding.last_frame}`
                      : `frame ${finding.first_frame}`),
                  finding.measured && `measured ${finding.measured}`,
                  finding.allowed && `allowed ${finding.allowed}`,
                ]
                  .filter(Boolean)
                  .join(" · ")}
              </div>
            </div>
          </div>
        ))}
      </div>
    </section>
  );
}
