// Batched greedy non-maximum suppression over the boxes of all modules of a detector: sort, compare, scan.
//
// A box goes when its IoU with a better kept box is above the threshold, as in Detections.nms of engines/types.py (tests/reference_nms.py), to
// the last bit: products are never fused into sums (__fmul_rn), ties of scores go to the lower index. Boxes under the
// score threshold, without a number for a score, or with a corner that is not finite are left out.
//
// No includes, no warp primitives: the same text compiles with nvcc, with NVRTC and, behind tests/cuda_shim.cpp, with
// a C++ compiler. Every image has `boxes` <= MAX_BOXES rows; each kernel's grid holds one block (or plane) an image.

typedef unsigned long long Word;

#define MAX_BOXES 3072  // 1024 of each of three modules
#define WORDS (MAX_BOXES / 64)
#define SORT 4096  // power of two that holds MAX_BOXES keys: 32 KiB of shared memory
#define THREADS 1024  // of nms_sort and nms_scan
#define ROWS (64 / (THREADS / 64))  // rows of a chunk that a thread of nms_scan holds

static __device__ bool finite(float x) { return x - x == 0.0f; }

// An integer that sorts as the score does, best first; the index below it breaks ties. Adding 0 makes -0 equal to 0.
static __device__ Word sort_key(float score, int index) {
    unsigned bits = __float_as_uint(score + 0.0f);
    unsigned rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (Word)~rising << 32 | (unsigned)index;
}

static __device__ float area(const float* xyxy) {
    float w = xyxy[2] - xyxy[0], h = xyxy[3] - xyxy[1];
    return __fmul_rn(w < 0.0f ? 0.0f : w, h < 0.0f ? 0.0f : h);
}

static __device__ bool overlap(const float* a, float area_a, const float* b, float area_b, float iou) {
    float w = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]);
    float h = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    float shared_area = __fmul_rn(w < 0.0f ? 0.0f : w, h < 0.0f ? 0.0f : h);
    float joint = area_a + area_b - shared_area;
    return shared_area > __fmul_rn(iou, joint) && shared_area > __fmul_rn(iou, 1e-9f);
}

// xyxy float [images, boxes, 4], scores float [images, boxes] -> what may stay, best first: sorted float
// [images, MAX_BOXES, 4], order int [images, MAX_BOXES] (their indices), count int [images]. Grid (images), THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
nms_sort(const float* xyxy, const float* scores, int boxes, float threshold, float* sorted, int* order, int* count) {
    __shared__ Word keys[SORT];
    __shared__ int found;
    int image = blockIdx.x, thread = threadIdx.x;
    xyxy += (long long)image * boxes * 4;
    scores += (long long)image * boxes;
    if (thread == 0) found = 0;
    __syncthreads();
    for (int i = thread; i < boxes; i += THREADS) {
        const float* box = xyxy + 4 * i;
        if (scores[i] >= threshold && finite(box[0]) && finite(box[1]) && finite(box[2]) && finite(box[3]))
            keys[atomicAdd(&found, 1)] = sort_key(scores[i], i);  // any order: the keys are all different
    }
    __syncthreads();
    int n = found, size = 1;
    while (size < n) size *= 2;
    for (int i = n + thread; i < size; i += THREADS) keys[i] = ~0ull;
    __syncthreads();
    for (int run = 2; run <= size; run *= 2)  // bitonic
        for (int step = run / 2; step > 0; step /= 2) {
            for (int i = thread; i < size / 2; i += THREADS) {
                int low = 2 * i - (i & (step - 1)), high = low + step;
                Word a = keys[low], b = keys[high];
                if ((a > b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
            }
            __syncthreads();
        }
    for (int i = thread; i < n; i += THREADS) {
        int index = (int)(keys[i] & 0xffffffffu);
        long long at = (long long)image * MAX_BOXES + i;
        order[at] = index;
        for (int k = 0; k < 4; k++) sorted[4 * at + k] = xyxy[4 * index + k];
    }
    if (thread == 0) count[image] = n;
}

// mask Word [images, MAX_BOXES, WORDS]: bit j of word c of a row says that it suppresses the later box 64 c + j.
// Words before the row's own are not written. Grid (words, words, images) of 64 threads, words = ceil(boxes / 64).
extern "C" __global__ void __launch_bounds__(64)
nms_mask(const float* sorted, const int* count, float iou, Word* mask) {
    __shared__ float columns[64][4];
    __shared__ float areas[64];
    int image = blockIdx.z, thread = threadIdx.x, n = count[image];
    int first_row = 64 * blockIdx.y, first_column = 64 * blockIdx.x;
    if (first_column < first_row || first_column >= n) return;  // the whole block
    sorted += (long long)image * MAX_BOXES * 4;
    if (first_column + thread < n) {
        for (int k = 0; k < 4; k++) columns[thread][k] = sorted[4 * (first_column + thread) + k];
        areas[thread] = area(columns[thread]);
    }
    __syncthreads();
    int row = first_row + thread, width = n - first_column < 64 ? n - first_column : 64;
    if (row >= n) return;
    const float* box = sorted + 4 * row;
    float own = area(box);
    Word word = 0;
    for (int j = first_row == first_column ? thread + 1 : 0; j < width; j++)
        if (overlap(box, own, columns[j], areas[j], iou)) word |= 1ull << j;
    mask[((long long)image * MAX_BOXES + row) * WORDS + blockIdx.x] = word;
}

// counts int [images]; faces float [images, boxes, 5], kept boxes best first as left, top, right, bottom, score, and
// zeros after them. Chunks of 64 boxes: one thread settles a chunk among itself, then all strike out what its kept
// boxes suppress; the masks of the next chunk are on their way meanwhile. Grid (images) of THREADS.
extern "C" __global__ void __launch_bounds__(THREADS)
nms_scan(const float* sorted, const int* order, const int* count, const Word* mask, const float* scores, int boxes,
         int* counts, float* faces) {
    __shared__ Word removed[64];
    __shared__ Word diagonal[64];
    __shared__ Word kept;
    int image = blockIdx.x, thread = threadIdx.x, n = count[image], chunks = (n + 63) / 64, total = 0;
    int word = thread & 63, first = (thread >> 6) * ROWS;
    sorted += (long long)image * MAX_BOXES * 4;
    order += (long long)image * MAX_BOXES;
    mask += (long long)image * MAX_BOXES * WORDS;
    scores += (long long)image * boxes;
    faces += (long long)image * boxes * 5;
    Word rows[ROWS], ahead[ROWS];
    for (int j = 0; j < ROWS; j++) ahead[j] = word < chunks && first + j < n ? mask[(first + j) * WORDS + word] : 0;
    if (thread < 64) removed[thread] = 0;
    for (int c = 0; c < chunks; c++) {
        for (int j = 0; j < ROWS; j++) {
            rows[j] = ahead[j];
            int row = 64 * (c + 1) + first + j;
            ahead[j] = word > c && word < chunks && row < n ? mask[row * WORDS + word] : 0;
            if (word == c) diagonal[first + j] = rows[j];
        }
        __syncthreads();
        if (thread == 0) {
            Word alive = ~removed[c], keep = 0;
            if (n - 64 * c < 64) alive &= (1ull << (n - 64 * c)) - 1;
            while (alive) {
                int i = __ffsll(alive) - 1;
                keep |= 1ull << i;
                alive &= ~(diagonal[i] | 1ull << i);
            }
            kept = keep;
        }
        __syncthreads();
        Word keep = kept, gone = 0;
        for (int j = 0; j < ROWS; j++)
            if (keep >> (first + j) & 1) gone |= rows[j];
        if (word > c && gone) atomicOr(&removed[word], gone);
        if (thread < 64 && keep >> thread & 1) {
            int row = 64 * c + thread;
            float* face = faces + 5 * (total + __popcll(keep & ((1ull << thread) - 1)));
            for (int k = 0; k < 4; k++) face[k] = sorted[4 * row + k];
            face[4] = scores[order[row]];
        }
        total += __popcll(keep);
    }
    for (int i = 5 * total + thread; i < 5 * boxes; i += THREADS) faces[i] = 0.0f;
    if (thread == 0) counts[image] = total;
}
