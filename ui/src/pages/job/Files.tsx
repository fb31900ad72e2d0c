// What was published: every file with its size, checksum and place.

import { ActionIcon, Tooltip } from "@mantine/core";
import { IconDownload } from "@tabler/icons-react";
import type { Schemas } from "../../api/client";
import { Copy } from "../../components/Copy";
import { isMoving } from "../../components/JobBits";
import { Empty } from "../../components/Messages";
import { Badge, Tag } from "../../components/State";
import { Ago } from "../../components/Time";
import { bytes, count } from "../../format";
import { PUBLICATION } from "../../words";

type Publication = Schemas["Publication"];

export const PUBLICATION_ROLE: Record<string, string> = {
  archive: "Archive",
  output: "Production files",
  preview: "Preview",
};

/** `output:First Light/v1` */
export function placeOf(publication: Publication): string {
  return `${publication.share}:${publication.target}/v${publication.version}`;
}

export function Files({ publications, job }: { publications: Publication[]; job: Schemas["Job"] }) {
  if (publications.length === 0) {
    return (
      <div className="panel">
        <Empty title="Nothing is published yet">
          <p>
            {isMoving(job)
              ? "Files appear here when they were verified and are complete on their share."
              : "This job ended before anything was published."}
          </p>
        </Empty>
      </div>
    );
  }
  return (
    <div className="stack">
      {publications.map((publication) => (
        <section className="panel" key={publication.id}>
          <div className="panel-head wrap">
            <h2>{PUBLICATION_ROLE[publication.role] ?? publication.role}</h2>
            <Badge word={PUBLICATION[publication.state]} />
            {!publication.current && publication.state === "published" && (
              <Tag title="A newer version stands now">not current</Tag>
            )}
            {publication.published_at && (
              <span className="dim small">
                <Ago at={publication.published_at} />
              </span>
            )}
          </div>
          <div className="panel-body row small" style={{ paddingBottom: 6 }}>
            <code className="break">{placeOf(publication)}</code>
            <Copy value={placeOf(publication)} label="Copy the folder" />
            <span className="push dim nowrap">
              {count(publication.files.length, "file")},{" "}
              {bytes(publication.files.reduce((n, file) => n + file.size, 0))}
            </span>
          </div>
          <div className="scroll">
            <table className="table" aria-label={`Files of ${publication.role}`}>
              <tbody>
                {publication.files.map((file) => (
                  <tr key={file.name}>
                    <td className="fill">
                      <div className="row">
                        {file.url ? (
                          <a
                            href={file.url}
                            target="_blank"
                            rel="noreferrer"
                            className="clip strong"
                          >
                            {file.name}
                          </a>
                        ) : (
                          <span className="clip strong">{file.name}</span>
                        )}
                        <Copy value={file.location} label={`Copy ${file.location}`} />
                      </div>
                    </td>
                    <td className="dim nowrap wide-only">{file.mime}</td>
                    <td className="nowrap wide-only">
                      <span className="row" style={{ gap: 2 }}>
                        <code title={`sha256 ${file.sha256}`}>{file.sha256.slice(0, 12)}…</code>
                        <Copy value={file.sha256} label="Copy sha256" />
                      </span>
                    </td>
                    <td className="num">{bytes(file.size)}</td>
                    <td style={{ width: 34 }}>
                      {file.url && (
                        <Tooltip label="Download">
                          <ActionIcon
                            component="a"
                            href={file.url}
                            download={file.name.slice(file.name.lastIndexOf("/") + 1)}
                            variant="subtle"
                            color="gray"
                            size="sm"
                            aria-label={`Download ${file.name}`}
                          >
                            <IconDownload size={15} />
                          </ActionIcon>
                        </Tooltip>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      ))}
    </div>
  );
}
