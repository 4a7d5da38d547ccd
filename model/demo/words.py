"""Words in both languages, and names."""

# Chinese, English.
PAIRS = [pair.split("=") for pair in """
苹果=apple 香蕉=banana 橙子=orange 葡萄=grape 梨=pear 桃子=peach 柠檬=lemon 西瓜=watermelon 草莓=strawberry 樱桃=cherry
水=water 茶=tea 咖啡=coffee 牛奶=milk 果汁=juice 啤酒=beer 面包=bread 米饭=rice 面条=noodles 鸡蛋=egg 汤=soup 糖=sugar 盐=salt 奶酪=cheese 蛋糕=cake 肉=meat
猫=cat 狗=dog 鸟=bird 鱼=fish 马=horse 牛=cow 羊=sheep 猪=pig 兔子=rabbit 老虎=tiger 狮子=lion 大象=elephant 熊猫=panda 猴子=monkey 蛇=snake 鸭子=duck 熊=bear 狐狸=fox 老鼠=mouse 蜜蜂=bee
红色=red 蓝色=blue 绿色=green 黄色=yellow 黑色=black 白色=white 紫色=purple 棕色=brown 灰色=grey 粉色=pink
太阳=sun 月亮=moon 星星=star 天空=sky 山=mountain 河=river 大海=sea 湖=lake 树=tree 花=flower 草=grass 雨=rain 雪=snow 风=wind 云=cloud 火=fire 石头=stone 森林=forest
房子=house 门=door 窗户=window 桌子=table 椅子=chair 床=bed 书=book 笔=pen 纸=paper 灯=lamp 钥匙=key 钟=clock 杯子=cup 刀=knife 电话=telephone 电脑=computer 汽车=car 火车=train 飞机=plane 船=ship 自行车=bicycle 街道=street 桥=bridge 城市=city 学校=school 医院=hospital 商店=shop 图书馆=library 公园=park 机场=airport
父亲=father 母亲=mother 兄弟=brother 姐妹=sister 儿子=son 女儿=daughter 朋友=friend 老师=teacher 学生=student 医生=doctor 孩子=child 国王=king 农民=farmer
头=head 手=hand 脚=foot 眼睛=eye 耳朵=ear 嘴=mouth 鼻子=nose 心=heart 头发=hair
春天=spring 夏天=summer 秋天=autumn 冬天=winter 早上=morning 晚上=evening 今天=today 明天=tomorrow 昨天=yesterday 年=year 星期=week
星期一=Monday 星期二=Tuesday 星期三=Wednesday 星期四=Thursday 星期五=Friday 星期六=Saturday 星期日=Sunday
大=big 小=small 热=hot 冷=cold 新=new 旧=old 好=good 坏=bad 快=fast 慢=slow 高=tall 长=long 短=short 美丽=beautiful 快乐=happy 悲伤=sad 强壮=strong 年轻=young 干净=clean 甜=sweet
吃=eat 喝=drink 走=walk 跑=run 睡觉=sleep 读=read 写=write 说=speak 听=listen 看=look 买=buy 卖=sell 打开=open 学习=study 工作=work 唱歌=sing 跳舞=dance 游泳=swim 爱=love 知道=know
世界=world 时间=time 音乐=music 语言=language 故事=story 名字=name 钱=money 梦=dream 和平=peace 自由=freedom 问题=question 答案=answer 数字=number 颜色=colour 礼物=gift 衣服=clothes 帽子=hat 鞋=shoes
""".split()]

COLOURS = {
    "en": "red blue green yellow black white purple brown grey pink orange silver gold violet turquoise cream beige scarlet olive indigo".split(),
    "zh": "红色 蓝色 绿色 黄色 黑色 白色 紫色 棕色 灰色 粉色 橙色 银色 金色 青色 米色 深红色 浅蓝色 墨绿色 咖啡色 天蓝色".split(),
}

NAMES = {
    "en": """Adam Alan Albert Alice Amy Andrew Anna Anthony Arthur Barbara Ben Betty Bill Bob Brian Carl Carol Catherine Charles Chloe
    Clara Daniel David Diana Donald Dora Edward Ella Emily Emma Eric Eva Felix Fiona Frank Fred Gary George Grace Hannah Harry Helen Henry Ian
    Irene Isaac Jack Jacob James Jane Janet Jason Jean Jennifer Jim Joe John Joseph Julia Karen Kate Keith Kevin Laura Leo Lily Linda Lisa
    Louis Lucy Luke Margaret Maria Mark Martin Mary Max Michael Mike Molly Nancy Nick Nina Nora Oliver Oscar Pamela Patrick Paul Peter
    Philip Rachel Ralph Rebecca Richard Robert Roger Rose Ruth Ryan Sally Sam Sarah Scott Simon Sophie Stella Steve Susan Ted Thomas Tim Tina
    Tom Tony Vera Victor Violet Walter Wendy William""".split(),
    "surname": list("王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"),
    "given": list("伟芳娜敏静丽强磊军洋勇艳杰涛明超霞平刚英华玉兰飞鹏宇浩凯健俊帆雪梅琳晶欣颖佳慧婷玲红建国志文海龙云峰山川天乐安宁思雨晨阳春秋冬月星光亮金银竹松柏青蓝紫"),
}


def chinese_name(rng):
    given = rng.choice(NAMES["given"]) + (rng.choice(NAMES["given"]) if rng.random() < 0.6 else "")
    return rng.choice(NAMES["surname"]) + given


# Subjects outside the training data. Used only for questions that the model declines.
UNKNOWN = {
    "en": """Paris France Germany Japan Brazil Egypt Canada London Tokyo Berlin Moscow Africa Mars Jupiter gravity electricity evolution democracy
    philosophy chemistry biology history economics football basketball chess tennis Shakespeare Mozart Beethoven Einstein Newton Napoleon Caesar
    photosynthesis volcanoes earthquakes dinosaurs whales sharks penguins bitcoin inflation taxes insurance marketing law medicine vaccines cancer
    diabetes vitamins yoga meditation astrology opera jazz ballet painting sculpture architecture engineering robotics aviation submarines satellites
    telescopes microscopes lasers magnets batteries engines bridges tunnels dams castles pyramids temples mosques cathedrals museums theatres
    Python Java Linux Windows databases compilers networks encryption algebra geometry calculus statistics logic ethics Plato Aristotle Confucius
    Buddha Titanic Everest Amazon Nile Sahara Antarctica Iceland Norway Sweden Spain Portugal Italy Greece Turkey India Korea Vietnam Australia""".split(),
    "zh": """巴黎 法国 德国 日本 巴西 埃及 加拿大 伦敦 东京 柏林 莫斯科 非洲 火星 木星 引力 电力 进化论 民主 哲学 化学 生物学 历史 经济学 足球 篮球 象棋 网球
    莎士比亚 莫扎特 贝多芬 爱因斯坦 牛顿 拿破仑 凯撒 光合作用 火山 地震 恐龙 鲸鱼 鲨鱼 企鹅 比特币 通货膨胀 税收 保险 市场营销 法律 医学 疫苗 癌症
    糖尿病 维生素 瑜伽 冥想 占星术 歌剧 爵士乐 芭蕾 绘画 雕塑 建筑 工程学 机器人 航空 潜艇 卫星 望远镜 显微镜 激光 磁铁 电池 发动机 隧道 水坝 城堡
    金字塔 寺庙 教堂 博物馆 剧院 数据库 编译器 网络 加密 代数 几何 微积分 统计学 逻辑 伦理 柏拉图 亚里士多德 孔子 佛陀 珠穆朗玛峰 亚马逊 尼罗河
    撒哈拉 南极洲 冰岛 挪威 瑞典 西班牙 葡萄牙 意大利 希腊 土耳其 印度 韩国 越南 澳大利亚 股票 房价 量子力学 黑洞 唐朝 宋朝 明朝 清朝""".split(),
}
