/**
 * The shared buffers of one runtime, as main allocates them and as every worker opens them. Plain views: the protocols
 * are in lane.ts, settlement-ring.ts and bell.ts.
 */
import { blockWords, board, NOTE_BYTES, slot, WORD } from './layout.js';

/** What crosses to a worker thread: SharedArrayBuffers are shared by the structured clone, not copied. */
export interface MemoryHandles {
  readonly slotCount: number;
  readonly laneCapacity: number;
  readonly arena: SharedArrayBuffer;
  readonly board: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly lane: SharedArrayBuffer;
  readonly notes: SharedArrayBuffer;
}

export interface Memory extends MemoryHandles {
  readonly boardWords: Int32Array;
  readonly slotWords: Int32Array;
  readonly laneWords: Int32Array;
  readonly noteBytes: Buffer;
  readonly bytes: Buffer;
}

/** `slotCount` a power of two, `arenaBytes` a multiple of the segment size. Untouched pages cost nothing. */
export function allocateMemory(slotCount: number, arenaBytes: number): Memory {
  const laneCapacity = slotCount * 2;
  return openMemory({
    slotCount,
    laneCapacity,
    arena: new SharedArrayBuffer(arenaBytes),
    board: new SharedArrayBuffer(board.WORDS * WORD),
    slots: new SharedArrayBuffer(slotCount * slot.WORDS * WORD),
    lane: new SharedArrayBuffer(laneCapacity * 2 * WORD),
    notes: new SharedArrayBuffer(slotCount * NOTE_BYTES),
  });
}

export function openMemory(handles: MemoryHandles): Memory {
  return {
    slotCount: handles.slotCount,
    laneCapacity: handles.laneCapacity,
    arena: handles.arena,
    board: handles.board,
    slots: handles.slots,
    lane: handles.lane,
    notes: handles.notes,
    boardWords: new Int32Array(handles.board),
    slotWords: new Int32Array(handles.slots),
    laneWords: new Int32Array(handles.lane),
    noteBytes: Buffer.from(handles.notes),
    bytes: Buffer.from(handles.arena),
  };
}

/** Only the buffers, for posting to a worker. */
export function memoryHandles(memory: Memory): MemoryHandles {
  const { slotCount, laneCapacity, arena, board: words, slots, lane, notes } = memory;
  return { slotCount, laneCapacity, arena, board: words, slots, lane, notes };
}

/** The block of one incarnation. A new one for each, so that nothing a dead thread left in it can matter. */
export function allocateBlock(concurrency: number, slotCount: number): SharedArrayBuffer {
  return new SharedArrayBuffer(blockWords(concurrency, slotCount) * WORD);
}
