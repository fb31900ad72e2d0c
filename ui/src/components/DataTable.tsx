// The one table of the interface: sorting by its heads, arrows and Enter on its rows,
// cards instead of columns where the screen is narrow.

import { useMediaQuery } from "@mantine/hooks";
import { type KeyboardEvent, type ReactNode, useMemo, useState } from "react";

const COLLATOR = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** One column. */
export interface Column<T> {
  id: string;
  head: ReactNode;
  cell: (row: T) => ReactNode;
  /** What the column is sorted by; without it, it is not. */
  sort?: (row: T) => string | number;
  /** Classes of the cells: `num`, `fill`, … */
  className?: string;
  width?: number;
}

export function DataTable<T>({
  rows,
  columns,
  rowKey,
  label,
  onOpen,
  selected,
  off,
  card,
  sortedBy,
}: {
  rows: T[];
  columns: Column<T>[];
  rowKey: (row: T) => string;
  /** What the table shows, for screen readers. */
  label: string;
  onOpen?: (row: T) => void;
  selected?: (row: T) => boolean;
  /** Rows that can't be used. */
  off?: (row: T) => boolean;
  /** A row on a narrow screen. */
  card?: (row: T) => ReactNode;
  sortedBy?: { id: string; desc: boolean };
}) {
  const narrow = useMediaQuery("(max-width: 820px)", undefined, { getInitialValueInEffect: false });
  const [sorting, setSorting] = useState(sortedBy);
  const sorted = useMemo(() => {
    const by = columns.find((column) => column.id === sorting?.id)?.sort;
    if (!sorting || !by) return rows;
    const order = sorting.desc ? -1 : 1;
    return rows.toSorted((a, b) => order * compare(by(a), by(b)));
  }, [rows, columns, sorting]);
  // First click: rising; second: falling; third: the server's order.
  const toggle = (id: string) =>
    setSorting((now) => {
      if (now?.id !== id) return { id, desc: false };
      return now.desc ? undefined : { id, desc: true };
    });

  if (narrow && card) {
    return (
      <div className="cards">
        {sorted.map((row) =>
          onOpen ? (
            <button
              key={rowKey(row)}
              type="button"
              className="card-row"
              data-row={rowKey(row)}
              aria-pressed={selected ? selected(row) : undefined}
              onClick={() => onOpen(row)}
            >
              {card(row)}
            </button>
          ) : (
            <div key={rowKey(row)} className="card-row" data-row={rowKey(row)}>
              {card(row)}
            </div>
          ),
        )}
      </div>
    );
  }

  const keys = (event: KeyboardEvent<HTMLTableRowElement>, row: T) => {
    if (event.target !== event.currentTarget) return;
    const own = event.currentTarget;
    const next = {
      ArrowDown: own.nextElementSibling,
      j: own.nextElementSibling,
      ArrowUp: own.previousElementSibling,
      k: own.previousElementSibling,
      Home: own.parentElement?.firstElementChild,
      End: own.parentElement?.lastElementChild,
    }[event.key];
    if (next instanceof HTMLElement) {
      event.preventDefault();
      next.focus();
    } else if ((event.key === "Enter" || event.key === " ") && onOpen) {
      event.preventDefault();
      onOpen(row);
    }
  };

  return (
    <div className="scroll">
      <table className="table" aria-label={label}>
        <thead>
          <tr>
            {columns.map((column) => {
              const direction = sorting?.id === column.id ? sorting : undefined;
              return (
                <th
                  key={column.id}
                  className={column.className}
                  style={column.width ? { width: column.width } : undefined}
                  aria-sort={direction && (direction.desc ? "descending" : "ascending")}
                >
                  {column.sort ? (
                    <button type="button" className="sort" onClick={() => toggle(column.id)}>
                      {column.head}
                      <span className="arrow">{direction ? (direction.desc ? "↓" : "↑") : ""}</span>
                    </button>
                  ) : (
                    column.head
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row, index) => (
            <tr
              key={rowKey(row)}
              data-row={rowKey(row)}
              data-open={onOpen ? true : undefined}
              data-off={off?.(row) || undefined}
              aria-selected={selected ? selected(row) : undefined}
              tabIndex={onOpen ? (index === 0 ? 0 : -1) : undefined}
              onClick={onOpen ? () => onOpen(row) : undefined}
              onKeyDown={(event) => keys(event, row)}
            >
              {columns.map((column) => (
                <td key={column.id} className={column.className}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function compare(a: string | number, b: string | number): number {
  return typeof a === "number" && typeof b === "number"
    ? a - b
    : COLLATOR.compare(String(a), String(b));
}
