"""What people have on their disks, row by row: how it is made, how it is read, what must come out.

`tests/test_manifests_formats.py` reads every row; `docs/formats.md` is written from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manifests.listing import Reading
from manifests.problems import Layout
from tests.dataset_files import blank, mask, picture, write_json, write_lines

Line = tuple[str, str, str, str, str | None]
"""Category, split, defect, image and mask of a row; it is normal exactly where defect is good."""

AS_IT_IS = Reading()


@dataclass(frozen=True)
class Row:
    """One format."""

    what: str
    """The sets or programs that have it."""
    where: str
    """Its tree, or the keys of its list."""
    layout: Layout
    make: Callable[[Path], None]
    lines: tuple[Line, ...] = ()
    """The table that must come out; none where it is refused."""
    refusal: str = ""
    """Words of the error, where it is refused."""
    reading: Reading = AS_IT_IS
    option: str = ""
    """How the reading is given on the command line."""
    remark: str = ""


def _mvtec(root: Path) -> None:
    picture(root, "bolt/train/good/000.png", "bolt/test/good/000.png", "bolt/test/cut/000.png")
    mask(root, "bolt/ground_truth/cut/000_mask.png")


def _goods(root: Path) -> None:
    picture(root, "can/train/good/1.jpg", "can/test/good/1.jpg", "can/test/opened/1.jpg")
    mask(root, "can/ground_truth/opened/1.png")


def _castings(root: Path) -> None:
    for split in ("train", "test"):
        picture(root, f"casting/{split}/def_front/1.jpeg", f"casting/{split}/ok_front/2.jpeg")


def _visa(root: Path) -> None:
    data = "nut/Data"
    picture(root, f"{data}/Images/Normal/0.JPG", f"{data}/Images/Normal/1.JPG")
    picture(root, f"{data}/Images/Anomaly/2.JPG")
    mask(root, f"{data}/Masks/Anomaly/2.png", value=3)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(
        "object,split,label,image,mask\n"
        f"nut,train,normal,{data}/Images/Normal/0.JPG,\n"
        f"nut,test,normal,{data}/Images/Normal/1.JPG,\n"
        f"nut,test,anomaly,{data}/Images/Anomaly/2.JPG,{data}/Masks/Anomaly/2.png\n"
    )


def _visa_tree(root: Path) -> None:
    picture(root, "nut/train/good/0.JPG", "nut/test/good/1.JPG", "nut/test/bad/2.JPG")
    mask(root, "nut/ground_truth/bad/2.png", value=1)


def _btad(root: Path) -> None:
    picture(root, "01/train/ok/0000.bmp", "01/test/ok/0001.bmp", "01/test/ko/0002.bmp")
    mask(root, "01/ground_truth/ko/0002.png")
    picture(root, "03/test/ok/0000.bmp", "03/test/ko/0001.bmp", "03/train/ok/0000.bmp")
    mask(root, "03/ground_truth/ko/0001.bmp")


def _loco(root: Path) -> None:
    top = "pushpins"
    picture(root, f"{top}/train/good/000.png", f"{top}/validation/good/000.png")
    picture(root, f"{top}/test/good/000.png", f"{top}/test/logical_anomalies/000.png")
    folder = f"{top}/ground_truth/logical_anomalies/000"
    mask(root, f"{folder}/000.png", value=250)
    mask(root, f"{folder}/001.png", value=236, columns=(3, 7))


def _mvtec_ad_2(root: Path) -> None:
    picture(root, "can/train/good/000_regular.png", "can/validation/good/001_regular.png")
    picture(root, "can/test_public/good/002_regular.png", "can/test_public/bad/003_regular.png")
    mask(root, "can/test_public/ground_truth/bad/003_regular_mask.png")
    picture(root, "can/test_private/004_regular.png", "can/test_private_mixed/005_mixed.png")


def _real_iad(root: Path) -> None:
    images = ("OK/S0001/tape_0001_OK_C1.jpg", "NG/BX/S0002/tape_0002_NG_BX_C1.jpg")
    unseen = "NG/BX/S0002/tape_0002_NG_BX_C2.jpg"
    seen_mask = images[1].replace("jpg", "png")
    picture(root, *(f"realiad_1024/tape/{image}" for image in (*images, unseen)))
    picture(root, "realiad_1024/tape/OK/S0003/tape_0003_OK_C1.jpg")
    mask(root, f"realiad_1024/tape/{seen_mask}")

    def entry(image: str, code: str = "OK", mask_path: str | None = None) -> dict[str, object]:
        return {
            "category": "tape",
            "anomaly_class": code,
            "image_path": image,
            "mask_path": mask_path,
        }

    content = {
        "meta": {"normal_class": "OK", "prefix": "tape/"},
        "train": [entry("OK/S0003/tape_0003_OK_C1.jpg")],
        "test": [entry(images[0]), entry(images[1], "BX", seen_mask), entry(unseen)],
    }
    write_json(root, "realiad_jsons/realiad_jsons/tape.json", content)
    write_json(root, "realiad_jsons/realiad_jsons_sv/tape.json", {**content, "test": []})


def _real_iad_category(root: Path) -> None:
    picture(root, "OK/S0001/tape_0001_OK_C1.jpg", "NG/BX/S0002/tape_0002_NG_BX_C1.jpg")
    mask(root, "NG/BX/S0002/tape_0002_NG_BX_C1.png")


def _real_iad_unseen(root: Path) -> None:
    _real_iad_category(root)
    picture(root, "NG/BX/S0002/tape_0002_NG_BX_C2.jpg")


def _mvtec_3d(root: Path) -> None:
    for folder in ("train/good", "validation/good", "test/good", "test/hole"):
        picture(root, f"bagel/{folder}/rgb/000.png", f"bagel/{folder}/xyz/000.tiff")
    blank(root, "bagel/test/good/gt/000.png")
    mask(root, "bagel/test/hole/gt/000.png")


def _bmad(root: Path) -> None:
    picture(root, "Brain/train/good/0.png", "Brain/test/good/img/1.png")
    picture(root, "Brain/test/Ungood/img/2.png", "Brain/valid/Ungood/img/3.png")
    blank(root, "Brain/test/good/label/1.png")
    mask(root, "Brain/test/Ungood/label/2.png", "Brain/valid/Ungood/label/3.png")


def _kolektor(root: Path) -> None:
    picture(root, "kos01/Part0.jpg", "kos01/Part5.jpg")
    blank(root, "kos01/Part0_label.bmp")
    mask(root, "kos01/Part5_label.bmp")


def _kolektor_2(root: Path) -> None:
    picture(root, "train/10000.png", "test/20000.png", "test/20001.png")
    blank(root, "train/10000_GT.png", "test/20000_GT.png")
    mask(root, "test/20001_GT.png")


def _dagm(root: Path) -> None:
    for split, defective, good in (("Train", "0576", "0577"), ("Test", "0002", "0003")):
        picture(root, f"Class1/{split}/{defective}.PNG", f"Class1/{split}/{good}.PNG")
        mask(root, f"Class1/{split}/Label/{defective}_label.PNG")
        (root / f"Class1/{split}/Label/Labels.txt").write_text("1\n")


def toy(root: Path, masks: str = "mask") -> None:
    picture(root, "good/000.jpg", "crack/000.jpg", "colour/001.jpg")
    mask(root, f"{masks}/crack/000.png", f"{masks}/colour/001_mask.png")


def two_folders(root: Path, normal: str, defective: str) -> None:
    picture(root, f"{normal}/1.jpg", f"{defective}/2.jpg")


def _gut_schlecht(root: Path) -> None:
    two_folders(root, "gut", "schlecht")


def _mvtec_without_masks(root: Path) -> None:
    picture(root, "bolt/train/good/000.png", "bolt/test/good/000.png", "bolt/test/cut/000.png")


def _unknown_masks(root: Path) -> None:
    picture(root, "good/000.png", "crack/001.png")
    mask(root, "wahrheit/crack/001.png")


def _snapshot(root: Path) -> None:
    """Links into blobs/, as the hub's cache has them; the root is the snapshot."""
    blobs = root.parent.parent / "blobs"
    for path in ("bolt/train/good/0.png", "bolt/test/good/0.png", "bolt/test/cut/0.png"):
        picture(root, path)
        _to_blob(root / path, blobs)
    mask(root, "bolt/ground_truth/cut/0_mask.png")
    _to_blob(root / "bolt/ground_truth/cut/0_mask.png", blobs)


def _snapshot_list(root: Path) -> None:
    _meta(root)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            _to_blob(path, root.parent.parent / "blobs")


def _to_blob(path: Path, blobs: Path) -> None:
    blobs.mkdir(exist_ok=True)
    blob = blobs / path.as_posix().replace("/", "-")
    path.rename(blob)
    depth = len(path.parent.relative_to(blobs.parent).parts)
    path.symlink_to("../" * depth + f"blobs/{blob.name}")


def _other_disk(root: Path) -> None:
    _mvtec(root.parent / "disk")
    root.mkdir(exist_ok=True)
    (root / "bolt").symlink_to(root.parent / "disk/bolt")


MVTEC_LINES: tuple[Line, ...] = (
    ("bolt", "test", "cut", "bolt/test/cut/000.png", "bolt/ground_truth/cut/000_mask.png"),
    ("bolt", "test", "good", "bolt/test/good/000.png", None),
    ("bolt", "train", "good", "bolt/train/good/000.png", None),
)
TOY_LINES: tuple[Line, ...] = (
    ("shop", "test", "colour", "colour/001.jpg", "mask/colour/001_mask.png"),
    ("shop", "test", "crack", "crack/000.jpg", "mask/crack/000.png"),
    ("shop", "test", "good", "good/000.jpg", None),
)
VISA_IMAGES = "nut/Data/Images"

FOLDERS: tuple[Row, ...] = (
    Row(
        "MVTec AD, MPDD",
        "cat/{train/good,test/DEFECT,ground_truth/DEFECT}, masks STEM_mask.png",
        "mvtec",
        _mvtec,
        MVTEC_LINES,
    ),
    Row(
        "GoodsAD",
        "the same, masks STEM.png",
        "mvtec",
        _goods,
        (
            ("can", "test", "good", "can/test/good/1.jpg", None),
            ("can", "test", "opened", "can/test/opened/1.jpg", "can/ground_truth/opened/1.png"),
            ("can", "train", "good", "can/train/good/1.jpg", None),
        ),
    ),
    Row(
        "MVTec AD without masks",
        "only the images",
        "mvtec",
        _mvtec_without_masks,
        (
            ("bolt", "test", "cut", "bolt/test/cut/000.png", None),
            *MVTEC_LINES[1:],
        ),
        remark="image metrics only, said as a warning",
    ),
    Row(
        "MVTec AD without masks",
        "the same",
        "folder",
        _mvtec_without_masks,
        refusal="this looks like MVTec AD: --dataset mvtec",
    ),
    Row(
        "a tree in words we do not know",
        "cat/{train,test}/{def_front,ok_front}",
        "mvtec",
        _castings,
        refusal="no folder's name says normal",
    ),
    Row(
        "MVTec AD by a wrong name",
        "cat/test/DEFECT",
        "visa",
        _mvtec,
        refusal="this looks like MVTec AD: --dataset mvtec",
    ),
    Row(
        "VisA",
        "split_csv/1cls.csv, cat/Data/{Images,Masks}/{Normal,Anomaly}",
        "visa",
        _visa,
        (
            (
                "nut",
                "test",
                "bad",
                f"{VISA_IMAGES}/Anomaly/2.JPG",
                "nut/Data/Masks/Anomaly/2.png",
            ),
            ("nut", "test", "good", f"{VISA_IMAGES}/Normal/1.JPG", None),
            ("nut", "train", "good", f"{VISA_IMAGES}/Normal/0.JPG", None),
        ),
    ),
    Row(
        "VisA by a wrong name",
        "the same",
        "mvtec",
        _visa,
        refusal="this looks like VisA: --dataset visa",
    ),
    Row(
        "VisA_pytorch, DTD-Synthetic",
        "cat/{train/good,test/{good,bad},ground_truth/bad}",
        "visa",
        _visa_tree,
        (
            ("nut", "test", "bad", "nut/test/bad/2.JPG", "nut/ground_truth/bad/2.png"),
            ("nut", "test", "good", "nut/test/good/1.JPG", None),
            ("nut", "train", "good", "nut/train/good/0.JPG", None),
        ),
    ),
    Row(
        "BTAD",
        "01/{train/ok,test/{ok,ko},ground_truth/ko}, masks .png or .bmp",
        "btad",
        _btad,
        (
            ("01", "test", "good", "01/test/ok/0001.bmp", None),
            ("01", "test", "ko", "01/test/ko/0002.bmp", "01/ground_truth/ko/0002.png"),
            ("01", "train", "good", "01/train/ok/0000.bmp", None),
            ("03", "test", "good", "03/test/ok/0000.bmp", None),
            ("03", "test", "ko", "03/test/ko/0001.bmp", "03/ground_truth/ko/0001.bmp"),
            ("03", "train", "good", "03/train/ok/0000.bmp", None),
        ),
    ),
    Row(
        "MVTec LOCO",
        "as MVTec AD, validation/good, ground_truth/DEFECT/STEM/000.png ..",
        "loco",
        _loco,
        (
            ("pushpins", "test", "good", "pushpins/test/good/000.png", None),
            (
                "pushpins",
                "test",
                "logical_anomalies",
                "pushpins/test/logical_anomalies/000.png",
                "pushpins/ground_truth/logical_anomalies/000",
            ),
            ("pushpins", "train", "good", "pushpins/train/good/000.png", None),
            ("pushpins", "train", "good", "pushpins/validation/good/000.png", None),
        ),
        remark="an image's masks count together; validation goes with train",
    ),
    Row(
        "MVTec LOCO by a wrong name",
        "the same",
        "mvtec",
        _loco,
        refusal="this looks like MVTec LOCO: --dataset loco",
    ),
    Row(
        "MVTec AD 2",
        "cat/{train,validation,test_public,test_private,test_private_mixed}",
        "mvtec-ad-2",
        _mvtec_ad_2,
        (
            (
                "can",
                "test",
                "bad",
                "can/test_public/bad/003_regular.png",
                "can/test_public/ground_truth/bad/003_regular_mask.png",
            ),
            ("can", "test", "good", "can/test_public/good/002_regular.png", None),
            ("can", "train", "good", "can/train/good/000_regular.png", None),
            ("can", "train", "good", "can/validation/good/001_regular.png", None),
        ),
        remark="the private tests have no labels and are left out",
    ),
    Row(
        "MVTec AD 2 by a wrong name",
        "the same",
        "mvtec",
        _mvtec_ad_2,
        refusal="this looks like MVTec AD 2: --dataset mvtec-ad-2",
    ),
    Row(
        "Real-IAD",
        "realiad_jsons/realiad_jsons/CAT.json, realiad_1024/CAT/{OK,NG}/..",
        "real-iad",
        _real_iad,
        (
            (
                "tape",
                "test",
                "BX",
                "realiad_1024/tape/NG/BX/S0002/tape_0002_NG_BX_C1.jpg",
                "realiad_1024/tape/NG/BX/S0002/tape_0002_NG_BX_C1.png",
            ),
            ("tape", "test", "good", "realiad_1024/tape/NG/BX/S0002/tape_0002_NG_BX_C2.jpg", None),
            ("tape", "test", "good", "realiad_1024/tape/OK/S0001/tape_0001_OK_C1.jpg", None),
            ("tape", "train", "good", "realiad_1024/tape/OK/S0003/tape_0003_OK_C1.jpg", None),
        ),
        remark="of several resolutions the largest; --list-file for the other lists",
    ),
    Row(
        "a category of Real-IAD",
        "OK/.., NG/.., masks .png beside the .jpg",
        "folder",
        _real_iad_category,
        (
            (
                "shop",
                "test",
                "NG",
                "NG/BX/S0002/tape_0002_NG_BX_C1.jpg",
                "NG/BX/S0002/tape_0002_NG_BX_C1.png",
            ),
            ("shop", "test", "good", "OK/S0001/tape_0001_OK_C1.jpg", None),
        ),
    ),
    Row(
        "a category of Real-IAD with unseen defects",
        "the same, and an NG image without a mask",
        "folder",
        _real_iad_unseen,
        refusal="no mask beside it, others have one; this looks like Real-IAD: --dataset real-iad",
    ),
    Row(
        "MVTec 3D-AD",
        "cat/test/DEFECT/{rgb,gt,xyz}/000.png",
        "mvtec-3d",
        _mvtec_3d,
        (
            (
                "bagel",
                "test",
                "good",
                "bagel/test/good/rgb/000.png",
                "bagel/test/good/gt/000.png",
            ),
            (
                "bagel",
                "test",
                "hole",
                "bagel/test/hole/rgb/000.png",
                "bagel/test/hole/gt/000.png",
            ),
            ("bagel", "train", "good", "bagel/train/good/rgb/000.png", None),
            ("bagel", "train", "good", "bagel/validation/good/rgb/000.png", None),
        ),
    ),
    Row(
        "BMAD",
        "cat/{train/good,test/{good,Ungood}/{img,label}}",
        "bmad",
        _bmad,
        (
            (
                "Brain",
                "test",
                "Ungood",
                "Brain/test/Ungood/img/2.png",
                "Brain/test/Ungood/label/2.png",
            ),
            (
                "Brain",
                "test",
                "good",
                "Brain/test/good/img/1.png",
                "Brain/test/good/label/1.png",
            ),
            ("Brain", "train", "good", "Brain/train/good/0.png", None),
        ),
        remark="valid/ is left out: it is neither train nor test",
    ),
    Row(
        "KolektorSDD",
        "kos01/Part5.jpg, kos01/Part5_label.bmp",
        "kolektor",
        _kolektor,
        (
            ("shop", "test", "defect", "kos01/Part5.jpg", "kos01/Part5_label.bmp"),
            ("shop", "test", "good", "kos01/Part0.jpg", "kos01/Part0_label.bmp"),
        ),
    ),
    Row(
        "KolektorSDD2",
        "{train,test}/20001.png, 20001_GT.png",
        "kolektor",
        _kolektor_2,
        (
            ("shop", "test", "defect", "test/20001.png", "test/20001_GT.png"),
            ("shop", "test", "good", "test/20000.png", "test/20000_GT.png"),
            ("shop", "train", "good", "train/10000.png", "train/10000_GT.png"),
        ),
    ),
    Row(
        "KolektorSDD2 by a wrong name",
        "the same",
        "folder",
        _kolektor_2,
        refusal="this looks like KolektorSDD: --dataset kolektor",
    ),
    Row(
        "KolektorSDD by a wrong name",
        "as above",
        "folder",
        _kolektor,
        refusal="kos01: this looks like KolektorSDD: --dataset kolektor",
    ),
    Row(
        "DAGM 2007",
        "Class1/{Train,Test}/0576.PNG, Label/0576_label.PNG",
        "dagm",
        _dagm,
        (
            (
                "Class1",
                "test",
                "defect",
                "Class1/Test/0002.PNG",
                "Class1/Test/Label/0002_label.PNG",
            ),
            ("Class1", "test", "good", "Class1/Test/0003.PNG", None),
            (
                "Class1",
                "train",
                "defect",
                "Class1/Train/0576.PNG",
                "Class1/Train/Label/0576_label.PNG",
            ),
            ("Class1", "train", "good", "Class1/Train/0577.PNG", None),
        ),
    ),
    Row(
        "DAGM 2007 by a wrong name",
        "the same",
        "folder",
        _dagm,
        refusal="this looks like DAGM: --dataset dagm",
    ),
    Row(
        "anomalib's toy set, own sets",
        "good/, DEFECT/, mask/DEFECT/ (masks, gt, GT, ground-truth, annotations, labels, ..)",
        "folder",
        toy,
        TOY_LINES,
    ),
    Row(
        "two folders",
        "yes and no, ok and nok, OK and NG, pass and fail, normal and abnormal, ..",
        "folder",
        lambda root: two_folders(root, "no", "yes"),
        (("shop", "test", "good", "no/1.jpg", None), ("shop", "test", "yes", "yes/2.jpg", None)),
    ),
    Row(
        "two folders in words we do not know",
        "gut, schlecht",
        "folder",
        _gut_schlecht,
        refusal="no folder's name says normal",
    ),
    Row(
        "two folders in words we do not know",
        "gut, schlecht",
        "folder",
        _gut_schlecht,
        (
            ("shop", "test", "good", "gut/1.jpg", None),
            ("shop", "test", "schlecht", "schlecht/2.jpg", None),
        ),
        reading=Reading(normal=("gut",)),
        option="--normal gut",
    ),
    Row(
        "masks in a folder we do not know",
        "good/, crack/, wahrheit/crack/",
        "folder",
        _unknown_masks,
        refusal="image that looks like the mask of another",
    ),
    Row(
        "masks in a folder we do not know",
        "good/, crack/, wahrheit/crack/",
        "folder",
        _unknown_masks,
        (
            ("shop", "test", "crack", "crack/001.png", "wahrheit/crack/001.png"),
            ("shop", "test", "good", "good/000.png", None),
        ),
        reading=Reading(masks="wahrheit"),
        option="--masks wahrheit",
    ),
    Row(
        "a snapshot in the hub's cache",
        "snapshots/REV/.. of links into blobs/",
        "mvtec",
        _snapshot,
        tuple(
            (category, split, defect, image.replace("000", "0"), m and m.replace("000", "0"))
            for category, split, defect, image, m in MVTEC_LINES
        ),
        remark="what links lead to in the blobs/ of the same snapshot belongs to it",
    ),
    Row(
        "a category on another disk",
        "bolt -> /disk/bolt",
        "mvtec",
        _other_disk,
        refusal="leaves the root; --follow-links reads what links lead to",
    ),
    Row(
        "a category on another disk",
        "bolt -> /disk/bolt",
        "mvtec",
        _other_disk,
        MVTEC_LINES,
        reading=Reading(follow_links=True),
        option="--follow-links",
    ),
)


def _meta_entry(
    image: str, mask_path: str | None, defect: str, anomaly: object, cls: str = "bolt"
) -> dict[str, object]:
    return {
        "img_path": image,
        "mask_path": mask_path,
        "cls_name": cls,
        "specie_name": defect,
        "anomaly": anomaly,
    }


def _bolts(root: Path) -> None:
    _mvtec(root)


def _meta(root: Path) -> None:
    _bolts(root)
    cut = ("bolt/test/cut/000.png", "bolt/ground_truth/cut/000_mask.png", "cut", 1)
    content = {
        "train": {"bolt": [_meta_entry("bolt/train/good/000.png", "", "good", 0)]},
        "test": {"bolt": [_meta_entry(*cut), _meta_entry("bolt/test/good/000.png", "", "good", 0)]},
    }
    write_json(root, "meta.json", content)


def _ader(root: Path) -> None:
    _bolts(root)
    picture(root, "bolt/validation/good/001.png")
    cut = ("bolt/test/cut//000.png", "bolt/ground_truth/cut/000_mask.png", "cut", 1)
    content = {
        "train": {"bolt": [_meta_entry("bolt/train/good//000.png", "", "good", 0)]},
        "test": {
            "bolt": [_meta_entry("bolt/test/good//000.png", "", "good", 0), _meta_entry(*cut)]
        },
        "validation": {"bolt": [_meta_entry("bolt/validation/good//001.png", "", "good", 0)]},
    }
    write_json(root, "meta.json", content)


def _meta_dagm(root: Path) -> None:
    _dagm(root)
    label = "Class1/Test/Label/0002_label.PNG"
    content = {
        "Train": {"Class1": [_meta_entry("Class1/Train/0577.PNG", "", "", 0, "Class1")]},
        "Test": {
            "Class1": [
                _meta_entry("Class1/Test/0003.PNG", "", "", 0, "Class1"),
                _meta_entry("Class1/Test/0002.PNG", label, "", 1, "Class1"),
            ]
        },
    }
    write_json(root, "meta.json", content)


def _br35(root: Path) -> None:
    picture(root, "no/1 no.jpeg", "yes/Y1.jpg")
    items = [
        _meta_entry(f"{root}//yes/Y1.jpg", "", "yes", 1, "brain"),
        _meta_entry(f"{root}//no/1 no.jpeg", "", "no", 0, "brain"),
    ]
    write_json(root, "meta.json", {"train": {}, "test": {"brain": items}})


def _elsewhere(root: Path) -> None:
    picture(root, "no/1 no.jpeg")
    item = _meta_entry("/remote-home/data/br35//no/1 no.jpeg", "", "no", 0, "brain")
    write_json(root, "meta.json", {"train": {}, "test": {"brain": [item]}})


def _vcp(root: Path) -> None:
    picture(root, "visa/nut/test/good/1.bmp", "visa/nut/test/anomaly/2.bmp")
    mask(root, "visa/nut/ground_truth/anomaly/2.png")
    masked = "visa/nut/ground_truth/anomaly/2.png"
    bad = _meta_entry("visa/nut/test/anomaly/2.bmp", masked, "anomaly", 1, "nut")
    good = _meta_entry("visa/nut/test/good/1.bmp", "", "good", 0, "nut")
    empty = _meta_entry("", "", "good", 0, "nut")
    content = {"train": {"nut": [empty]}, "test": {"nut": [bad, good]}}
    write_json(root, "meta_visa.json", content)
    write_json(root, "meta_mvtec.json", {"train": {}, "test": {}})


def _vcp_below(root: Path) -> None:
    picture(root, "nut/test/good/1.bmp", "nut/test/anomaly/2.bmp")
    mask(root, "nut/ground_truth/anomaly/2.png")
    top = root.name  # the list lies beside the set's folder, and its paths begin with it
    masked = f"{top}/nut/ground_truth/anomaly/2.png"
    bad = _meta_entry(f"{top}/nut/test/anomaly/2.bmp", masked, "anomaly", 1, "nut")
    good = _meta_entry(f"{top}/nut/test/good/1.bmp", "", "good", 0, "nut")
    write_json(root.parent, "meta_visa.json", {"train": {}, "test": {"nut": [bad, good]}})


def _windows(root: Path) -> None:
    _bolts(root)
    masked = "bolt\\ground_truth\\cut\\000_mask.png"
    items = [
        _meta_entry(".\\bolt\\test\\cut\\000.png", masked, "cut", "1"),
        # the folder of masks, for an image that has none
        _meta_entry("./bolt/test/good/000.png", "bolt\\ground_truth\\", "good", "0"),
    ]
    write_json(root, "meta.json", {"test": {"bolt": items}})


def _aa_clip(root: Path) -> None:
    _bolts(root)
    good: dict[str, object] = {"image_path": "bolt/test/good/000.png", "label": 0.0}
    cut: dict[str, object] = {"image_path": "bolt/test/cut/000.png", "label": 1.0}
    cut |= {"class_name": "bolt", "mask_path": "bolt/ground_truth/cut/000_mask.png"}
    write_lines(root, "full-shot.jsonl", [{**good, "class_name": "bolt"}, cut])


def _uniad(root: Path) -> None:
    _bolts(root)
    cut: dict[str, object] = {"filename": "bolt/test/cut/000.png", "label": 1}
    cut |= {"label_name": "defective", "maskname": "bolt/ground_truth/cut/000_mask.png"}
    good = {"filename": "bolt/test/good/000.png", "label": 0, "label_name": "good"}
    train = {"filename": "bolt/train/good/000.png", "label": 0, "label_name": "good"}
    write_lines(root, "lists/test.json", [cut | {"clsname": "bolt"}, good])
    write_lines(root, "lists/train.json", [train | {"clsname": "bolt"}])


def _anomalib(root: Path) -> None:
    _bolts(root)
    (root / "samples.csv").write_text(
        ",path,split,label,image_path,mask_path,label_index\n"
        f"0,{root},Split.TRAIN,DirType.NORMAL,{root}/bolt/train/good/000.png,,0\n"
        f"1,{root},Split.TEST,DirType.NORMAL_TEST,{root}/bolt/test/good/000.png,,0\n"
        f"2,{root},Split.TEST,DirType.ABNORMAL,{root}/bolt/test/cut/000.png,"
        f"{root}/bolt/ground_truth/cut/000_mask.png,1\n"
    )


def _own_csv(root: Path) -> None:
    _bolts(root)
    # as a spreadsheet of Europe saves it
    text = (
        "\ufeffimage_path;label;mask_path\r\n"
        "bolt/test/good/000.png;good;\r\n"
        "bolt/test/cut/000.png;cut;bolt/ground_truth/cut/000_mask.png\r\n"
    )
    (root / "list.csv").write_bytes(text.encode())


def _excel(root: Path) -> None:
    _own_csv(root)
    text = (root / "list.csv").read_text(encoding="utf-8-sig")
    (root / "list.csv").write_text(f"sep=;\n{text};;\n;;\n", encoding="utf-8-sig")


def _coco(root: Path) -> None:
    _bolts(root)
    write_json(root, "list.json", {"images": [], "annotations": [], "categories": []})


def _no_label(root: Path) -> None:
    _bolts(root)
    text = "image_path,label\nbolt/test/good/000.png,bolt\nbolt/test/cut/000.png,nut\n"
    (root / "list.csv").write_text(text)


NAMELESS: tuple[Line, ...] = (
    ("bolt", "test", "defect", "bolt/test/cut/000.png", "bolt/ground_truth/cut/000_mask.png"),
    MVTEC_LINES[1],
)

LISTS: tuple[Row, ...] = (
    Row(
        "AnomalyCLIP, AdaptCLIP, AdaCLIP, April-GAN, FiLo, SPG",
        "meta.json: {train, test}{cls: [{img_path, mask_path, cls_name, specie_name, anomaly}]}",
        "meta",
        _meta,
        MVTEC_LINES,
    ),
    Row(
        "the same in the hub's cache",
        "list and images are links into blobs/",
        "meta",
        _snapshot_list,
        MVTEC_LINES,
    ),
    Row(
        "ADer, MambaAD",
        "the same, with cat/test/x//000.png and a split validation",
        "meta",
        _ader,
        (*MVTEC_LINES, ("bolt", "train", "good", "bolt/validation/good/001.png", None)),
    ),
    Row(
        "AnomalyCLIP for DAGM",
        "splits Train and Test, no specie_name",
        "meta",
        _meta_dagm,
        (
            (
                "Class1",
                "test",
                "defect",
                "Class1/Test/0002.PNG",
                "Class1/Test/Label/0002_label.PNG",
            ),
            ("Class1", "test", "good", "Class1/Test/0003.PNG", None),
            ("Class1", "train", "good", "Class1/Train/0577.PNG", None),
        ),
    ),
    Row(
        "AnomalyCLIP for medical sets",
        "absolute img_path below the root",
        "meta",
        _br35,
        (
            ("brain", "test", "good", "no/1 no.jpeg", None),
            ("brain", "test", "yes", "yes/Y1.jpg", None),
        ),
    ),
    Row(
        "a list made on another machine",
        "absolute img_path elsewhere",
        "meta",
        _elsewhere,
        refusal="the path is absolute",
    ),
    Row(
        "VCP-CLIP, Bayes-PFL",
        'meta_DS.json in the parent folder, img_path "" where a folder is empty',
        "meta",
        _vcp,
        (
            (
                "nut",
                "test",
                "anomaly",
                "visa/nut/test/anomaly/2.bmp",
                "visa/nut/ground_truth/anomaly/2.png",
            ),
            ("nut", "test", "good", "visa/nut/test/good/1.bmp", None),
        ),
        reading=Reading(list_file="meta_visa.json"),
        option="--list-file meta_visa.json",
    ),
    Row(
        "VCP-CLIP, Bayes-PFL",
        "the same, read from the folder of the set",
        "meta",
        _vcp_below,
        (
            ("nut", "test", "anomaly", "nut/test/anomaly/2.bmp", "nut/ground_truth/anomaly/2.png"),
            ("nut", "test", "good", "nut/test/good/1.bmp", None),
        ),
        reading=Reading(list_file="../meta_visa.json"),
        option="--list-file ../meta_visa.json",
    ),
    Row(
        "VCP-CLIP, Bayes-PFL",
        "the same, the list not named",
        "meta",
        _vcp_below,
        refusal="meta.json: not found, but ../meta_visa.json: --list-file NAME reads it",
    ),
    Row(
        "made on Windows",
        "backslashes, ./, anomaly as text, a folder as mask_path",
        "meta",
        _windows,
        MVTEC_LINES[:2],
    ),
    Row(
        "AA-CLIP",
        "JSON lines: image_path, label (1.0), class_name, mask_path",
        "list",
        _aa_clip,
        NAMELESS,
    ),
    Row(
        "UniAD, OneNIP",
        "JSON lines: filename, label, label_name, maskname, clsname",
        "list",
        _uniad,
        (
            ("bolt", "test", "defective", *NAMELESS[0][3:]),
            *MVTEC_LINES[1:],
        ),
        reading=Reading(list_file="lists"),
        option="--list-file lists",
        remark="train.json and test.json name the split",
    ),
    Row(
        "anomalib",
        "CSV: image_path, label, label_index, mask_path, split",
        "list",
        _anomalib,
        (
            ("shop", *NAMELESS[0][1:]),
            ("shop", *MVTEC_LINES[1][1:]),
            ("shop", *MVTEC_LINES[2][1:]),
        ),
    ),
    Row(
        "own lists",
        "CSV: image_path, label (good, or the defect's name), mask_path",
        "list",
        _own_csv,
        (("shop", *MVTEC_LINES[0][1:]), ("shop", *MVTEC_LINES[1][1:])),
    ),
    Row(
        "Excel",
        "CSV that begins with sep=;",
        "list",
        _excel,
        (("shop", *MVTEC_LINES[0][1:]), ("shop", *MVTEC_LINES[1][1:])),
    ),
    Row(
        "COCO",
        "JSON: images, annotations, categories",
        "list",
        _coco,
        refusal="COCO's boxes and polygons",
    ),
    Row(
        "a list whose labels are products",
        "CSV: image_path, label",
        "list",
        _no_label,
        refusal="expected an image's path and one label",
    ),
    Row(
        "a meta.json as a list of rows",
        "meta.json",
        "list",
        _meta,
        refusal="one object, as a list of layout meta is: --dataset meta",
        reading=Reading(list_file="meta.json"),
        option="--list-file meta.json",
    ),
)
